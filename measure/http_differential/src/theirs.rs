//! hyper, over a pipe in memory.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn told(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let uri = request.uri();
    let line = format!("{} {} {:?}", request.method(), uri.path(), uri.query());
    // A body that is wrong is answered 400, as lariat does: hyper would close without a word.
    let (status, text) = match request.into_body().collect().await {
        Ok(body) => (StatusCode::OK, crate::tell(&line, &body.to_bytes())),
        Err(_) => (StatusCode::BAD_REQUEST, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

/// What hyper answers to `bytes` and a FIN.
pub(crate) fn ask(bytes: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let mut builder = http1::Builder::new();
        builder.half_close(true);
        let connection = builder.serve_connection(TokioIo::new(far), service_fn(told));
        let talk = async {
            let mut answer = Vec::new();
            // It may have closed before it has read everything.
            let _ = near.write_all(bytes).await;
            let _ = near.shutdown().await;
            let _ = near.read_to_end(&mut answer).await;
            answer
        };
        tokio::join!(async { connection.await.ok() }, talk).1
    })
}
