//! A load generator for echo servers that checks every byte that comes back, and for servers of
//! HTTP.
//!
//! One thread on mio, so that it costs less than the servers it measures and can be pinned to a core
//! of its own. It talks to the loopback interface only, and every mode ends within `--limit`. The
//! exit status is 0 only if everything asked for happened and every byte was right.
#![forbid(unsafe_code)]

mod client;
mod crowd;
mod echo;
mod http;
mod idle;
mod lives;
mod never_read;
mod options;
mod stream;
mod system;

use options::{Options, USAGE};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(e) => {
            eprintln!("load: {e}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match options.mode.as_str() {
        "echo" => echo::run(&options),
        "http" => http::run(&options),
        "http-idle" => http::idle(&options),
        "idle" => idle::run(&options),
        "lives" => lives::run(&options),
        "never-read" => never_read::run(&options),
        "crowd" => crowd::run(&options),
        "free-port" => free_port(),
        other => {
            eprintln!("load: no mode {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("load {}: {e}", options.mode);
            ExitCode::FAILURE
        }
    }
}

fn free_port() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}
