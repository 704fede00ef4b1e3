use lariat::http::{Handler, Header, Http, Request, Response, Status};
use lariat::{Context, Outcome};

struct Hello;

impl Handler for Hello {
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Outcome {
        match (request.method(), request.path()) {
            ("GET" | "HEAD", "/") => response.send(cx, Status::OK, &[Header::TEXT], "hello\n"),
            ("POST", "/") => response.collect(),
            _ => response.send(cx, Status::NOT_FOUND, &[Header::TEXT], "not here\n"),
        }
        Ok(())
    }

    fn collected(&mut self, cx: &mut Context<'_>, body: &[u8], response: &mut Response) -> Outcome {
        response.send(cx, Status::OK, &[Header::BYTES], body);
        Ok(())
    }
}

fn main() -> lariat::Result<()> {
    lariat::reactor::serve("127.0.0.1:8080", || Http::new(Hello))
}
