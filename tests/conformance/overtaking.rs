//! What overtakes the requests of handles that wait: an abort, and shutdown.

use lariat::{Control, Note};

use crate::handles::Told;
use crate::kit::{Play, everywhere};
use crate::node::Node;

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

#[test]
fn what_is_asked_of_a_datagram_socket_that_a_callback_has_just_bound_is_not_forgotten() {
    everywhere(|stage| {
        let addr = stage.serve("server", Play::new);
        let (handle, log) = (stage.driver.handle(), stage.log.clone());
        let client = Play::new().opened(move |cx| {
            // They have an id, and do not exist before this callback has returned.
            let aborted = cx.driver().bind("127.0.0.1:0", Node::new().under("aborted", &log))?;
            handle.abort(aborted);
            let node = Node::new().notified(|cx, _| {
                cx.close();
                Ok(())
            });
            let noted = cx.driver().bind("127.0.0.1:0", node.under("noted", &log))?;
            handle.notify(noted, Note::new(()))?;
            let closed = cx.driver().bind("127.0.0.1:0", Node::new().under("closed", &log))?;
            handle.close(closed)?;
            cx.close();
            Ok(())
        });
        stage.connect("client", addr, client);
        stage.run();
        let aborted = stage.log.of("aborted");
        stage.check(aborted.ends_with(&["closed aborted by us".to_owned()]), "it is aborted");
        stage.expect_node("noted", &["opened", "notified", "closed finished by us"]);
        let closed = stage.log.of("closed");
        stage.check(closed.ends_with(&["closed finished by us".to_owned()]), "it is closed");
        stage.check(stage.driver.metrics().stale == 0, "each of them was reached");
    });
}
