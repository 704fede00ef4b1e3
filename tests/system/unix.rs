//! Unix sockets: their files, and who is at the other end.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use lariat::{
    Context, Datagram, DatagramContext, DatagramOptions, DatagramProtocol, DriverLimits, Incoming,
    Input, Outcome, PeerCredentials, Protocol,
};

use crate::kit::*;

/// Stays until the driver stops.
struct Stays;

impl DatagramProtocol for Stays {
    fn datagram(&mut self, _: &mut DatagramContext<'_>, _: &Datagram<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_file_with_a_relative_path_goes_with_its_socket_from_anywhere() {
    let Some(name) = part() else {
        for driver in DRIVERS {
            let name = "unix::a_file_with_a_relative_path_goes_with_its_socket_from_anywhere";
            again(&[], name, driver);
        }
        return;
    };
    let place = std::env::temp_dir().join(format!("lariat-relative-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    std::env::set_current_dir(&place).unwrap();
    let mut driver = driver(&name, DriverLimits::default());
    driver.control().listen(Path::new("stream"), |_| Some(Echo)).unwrap();
    driver.control().bind(Path::new("datagrams"), Stays).unwrap();
    assert!(["stream", "datagrams"].iter().all(|name| place.join(name).exists()));
    std::env::set_current_dir("/").unwrap();
    driver.control().shutdown();
    driver.run().unwrap();
    std::fs::remove_dir(&place).expect("nothing is left in it");
}

/// Tells who has come, and goes.
struct Tells(mpsc::Sender<Option<PeerCredentials>>);

impl Protocol for Tells {
    fn opened(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.0.send(cx.peer_credentials())?;
        cx.driver().shutdown();
        Ok(())
    }
    fn data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> Outcome {
        Ok(())
    }
}

#[test]
fn the_user_and_the_group_of_a_peer_are_not_taken_for_one_another() {
    const NAME: &str = "unix::the_user_and_the_group_of_a_peer_are_not_taken_for_one_another";
    const GROUP: u32 = 4321;
    if let Some(path) = part() {
        // Until the other end closes.
        let _ = UnixStream::connect(path).unwrap().read(&mut [0]);
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root starts processes of another group");
        return;
    }
    for name in DRIVERS {
        let place = std::env::temp_dir().join(format!("lariat-peer-{}-{name}", std::process::id()));
        let mut driver = driver(name, DriverLimits::default());
        let (tell, told) = mpsc::channel();
        let tells = tell.clone();
        let factory = move |incoming: &Incoming| {
            tells.send(incoming.peer_credentials()).ok()?;
            Some(Tells(tell.clone()))
        };
        driver.control().listen(&place, factory).unwrap();
        let mut child = command(&[], NAME, place.to_str().unwrap()).gid(GROUP).spawn().unwrap();
        driver.run().unwrap();
        drop(driver);
        let expected = Some(PeerCredentials::new(child.id(), 0, GROUP));
        assert_eq!(told.iter().collect::<Vec<_>>(), [expected; 2], "{name}");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_file_never_has_more_permissions_than_its_mode_says() {
    const NAME: &str = "unix::a_file_never_has_more_permissions_than_its_mode_says";
    let Some(name) = part() else {
        // Time to look, before the permissions are set by the path.
        let Some(slow) = strace("?chmod,?fchmodat,?fchmodat2:delay_enter=200000") else { return };
        let slow: Vec<&str> = slow.iter().map(String::as_str).collect();
        DRIVERS.iter().for_each(|driver| drop(again(&slow, NAME, driver)));
        return;
    };
    let place = std::env::temp_dir().join(format!("lariat-mode-{}", std::process::id()));
    let seen = place.clone();
    let looks = thread::spawn(move || {
        loop {
            if let Ok(file) = std::fs::symlink_metadata(&seen) {
                return file.permissions().mode() & 0o777;
            }
        }
    });
    let mut driver = driver(&name, DriverLimits::default());
    let mut options = DatagramOptions::default();
    options.mode = Some(0o600);
    driver.control().bind_with(place.as_path(), options, Stays).unwrap();
    assert_eq!(looks.join().unwrap(), 0o600);
    driver.control().shutdown();
    driver.run().unwrap();
}
