//! What overtakes the requests of handles that wait: an abort, and shutdown.

use lariat::{Control, Note};

use crate::handles::Told;
use crate::kit::{Play, everywhere};

#[test]
fn an_abort_comes_before_all_that_waits_for_its_connection() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let handle = stage.driver.handle();
        let client = Play::new().opened(move |cx| {
            let id = cx.id();
            handle.write(id, b"never sent").unwrap();
            handle.notify(id, Note::new(())).unwrap();
            handle.close(id).unwrap();
            handle.abort(id);
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        stage.expect("client", &["opened", "closed aborted by us"]);
        let server = stage.trace.of("server");
        stage.check(server.ends_with(&["closed reset by the peer".to_owned()]), "it is reset");
        let metrics = stage.driver.metrics();
        stage.check(metrics.bytes_out == 0, "nothing that waited was sent");
    });
}

#[test]
fn shutdown_comes_before_closures_and_connects_that_wait() {
    everywhere(|stage| {
        let addr = stage.deserted();
        let (handle, told) = (stage.driver.handle(), Told::default());
        let tells = told.clone();
        let call = move |control: &mut Control<'_>| {
            tells.tell(format!("stopping: {}", control.is_stopping()));
            let error = control.listen("127.0.0.1:0", |_| None::<Play>).unwrap_err();
            tells.tell(error.to_string());
        };
        handle.call(call).unwrap();
        handle.connect(addr, stage.trace.wrap("client", Play::new())).unwrap();
        handle.shutdown();
        stage.run();
        let refused = "cannot listen on 127.0.0.1:0: it has ended";
        told.expect(stage, &["stopping: true", refused]);
        stage.expect("client", &["closed connect cancelled by the runtime"]);
    });
}
