//! The same bytes for lariat and for hyper: whatever lariat answers 200 has to mean the same to
//! both, or a proxy of the one kind before a server of the other could be made to disagree with it.
//!
//! `http_differential [COUNT] [SEED]` makes COUNT [20000] inputs out of right and nearly right
//! pieces, from SEED [1]. Lariat may refuse what hyper takes (that is counted by what it answered);
//! it may not take what hyper refuses, nor see another method, target or body. The first input for
//! which it does is printed, with the seed that makes it, and the exit status is 1.
#![forbid(unsafe_code)]

mod inputs;
mod theirs;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use lariat::http::{self, Handler, Header, Http, Request, Response, Status, ValidLimits};
use lariat::sim::Probe;
use lariat::{Context, Outcome};

/// Answers with what it understood.
#[derive(Default)]
struct Told {
    line: String,
}

/// A request as one line.
fn tell(line: &str, body: &[u8]) -> String {
    format!("{line} [{}]\n", body.escape_ascii())
}

impl Handler for Told {
    fn request(
        &mut self,
        _: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        self.line = format!("{} {} {:?}", request.method(), request.path(), request.query());
        response.collect();
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::TEXT], tell(&self.line, body));
        Ok(())
    }
}

/// Without the targets that only RFC 3986 forbids: nobody disagrees about their end, but hyper knows
/// none that is not UTF-8.
fn limits() -> lariat::Result<ValidLimits> {
    let mut limits = http::Limits::default();
    limits.strict_targets = true;
    limits.validate()
}

fn ours(bytes: &[u8], limits: &ValidLimits) -> Vec<u8> {
    let mut probe = Probe::new(Http::with_limits(Told::default(), limits));
    probe.receive(bytes);
    probe.finish();
    probe.advance(Duration::from_secs(20));
    probe.sent().into_vec()
}

/// Status and body of each final answer.
fn answers(mut bytes: &[u8]) -> Vec<(u16, String)> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
        let rest = &bytes[end + 4..];
        // HEAD has a length and no body.
        let follows = rest.starts_with(b"HTTP/1.1 ") || rest.is_empty();
        let body = &rest[..if follows { 0 } else { length.min(rest.len()) }];
        if status >= 200 {
            found.push((status, String::from_utf8_lossy(body).into_owned()));
        }
        bytes = &rest[body.len()..];
    }
    found
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map_while(|arg| arg.parse::<u64>().ok());
    let (count, seed) = (args.next().unwrap_or(20_000), args.next().unwrap_or(1));
    let mut refused: BTreeMap<u16, u64> = BTreeMap::new();
    let mut taken = 0u64;
    let limits = match limits() {
        Ok(limits) => limits,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for number in seed..seed + count {
        let input = inputs::make(number);
        let (us, them) = (answers(&ours(&input, &limits)), answers(&theirs::ask(&input)));
        let mut differs = false;
        for at in 0.. {
            match (us.get(at), them.get(at)) {
                (Some((200, ours)), Some((200, theirs))) if ours == theirs => taken += 1,
                (Some((200, _)), _) => {
                    differs = true;
                    break;
                }
                // Refused: what follows is no longer of interest.
                (Some((status, _)), theirs) => {
                    if matches!(theirs, Some((200, _))) {
                        *refused.entry(*status).or_default() += 1;
                    }
                    break;
                }
                (None, Some((200, _))) => {
                    differs = true;
                    break;
                }
                (None, _) => break,
            }
        }
        if differs {
            println!("input {number} means two things:\n{}", input.escape_ascii());
            println!("lariat: {us:?}\nhyper:  {them:?}");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} inputs from {seed}: {taken} requests understood alike");
    println!("refused by lariat alone, by status: {refused:?}");
    ExitCode::SUCCESS
}
