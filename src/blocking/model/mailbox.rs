//! The mailbox of a loop, which sleeps until it is woken.

use std::collections::BTreeSet;

use super::*;
use crate::error::ErrorKind as Refusal;
use crate::handle::{Handle, Mail, Mailbox, Post};
use crate::id::ConnId;
use crate::sync::{Condvar, Mutex as ModelMutex};

/// What a loop sleeps in: a wake-up that comes before the sleep ends it at once.
#[derive(Default)]
struct Sleep {
    woken: ModelMutex<bool>,
    changed: Condvar,
    wakes: Mutex<usize>,
}

impl Sleep {
    fn wake(&self) {
        *self.wakes.lock().unwrap() += 1;
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

fn mailbox(posts_max: usize) -> (Arc<Mailbox>, Handle, Arc<Sleep>) {
    let sleep = Arc::new(Sleep::default());
    let wakes = Arc::clone(&sleep);
    let mailbox = Arc::new(Mailbox::new(posts_max, Box::new(move || wakes.wake())));
    (Arc::clone(&mailbox), Handle::new(mailbox), sleep)
}

/// Sleeps and looks, as the loop does, until `enough` of what came. Returns the number of looks.
fn look_until(mailbox: &Mailbox, sleep: &Sleep, mut enough: impl FnMut(Mail) -> bool) -> usize {
    let mut looks = 0;
    loop {
        sleep.sleep();
        dawdle();
        if mailbox.has_mail() {
            looks += 1;
            if enough(mailbox.take()) {
                return looks;
            }
        }
    }
}

fn id(bits: u64) -> ConnId {
    ConnId::from_bits(1 << 32 | bits).unwrap()
}

#[test]
fn model_no_post_is_lost_between_the_loops_last_look_and_its_sleep() {
    check(|| {
        let (mailbox, handle, sleep) = mailbox(100);
        let posters: Vec<_> = (0..3u64)
            .map(|thread| {
                let handle = handle.clone();
                spawn(move || {
                    for n in 0..3 {
                        handle.close(id(thread * 10 + n)).unwrap();
                        dawdle();
                    }
                })
            })
            .collect();
        let mut came: Vec<Vec<ConnId>> = vec![Vec::new(); 3];
        let looks = look_until(&mailbox, &sleep, |mail| {
            for post in mail.posts {
                let Post::Close(id) = post else { panic!("another post") };
                came[id.slot() / 10].push(id);
            }
            came.iter().map(Vec::len).sum::<usize>() == 9
        });
        join(posters);
        for (thread, came) in (0..).zip(came) {
            assert_eq!(came, (0..3).map(|n| id(thread * 10 + n)).collect::<Vec<_>>());
        }
        // Many posts, one wake-up: only the first since the loop has looked.
        let wakes = *sleep.wakes.lock().unwrap();
        assert!(wakes <= looks + 1, "{wakes} wake-ups for {looks} looks");
    });
}

#[test]
fn model_an_abort_and_a_shutdown_wake_a_loop_that_sleeps() {
    check(|| {
        let (mailbox, handle, sleep) = mailbox(0);
        let aborts = handle.clone();
        let threads = [
            spawn(move || aborts.abort(id(1))),
            spawn(move || {
                dawdle();
                handle.shutdown();
            }),
        ];
        let (mut aborted, mut stopped) = (false, false);
        look_until(&mailbox, &sleep, |mail| {
            aborted |= mail.aborts.contains(&id(1));
            stopped |= mail.shutdown;
            aborted && stopped
        });
        join(threads);
    });
}

#[test]
fn model_a_request_that_a_full_mailbox_refuses_comes_back_and_can_be_posted_again() {
    check(|| {
        let (mailbox, handle, sleep) = mailbox(1);
        let posters: Vec<_> = (0..3u8)
            .map(|thread| {
                let handle = handle.clone();
                spawn(move || {
                    let mut note = Note::new(thread);
                    while let Err(refused) = handle.notify(id(1), note) {
                        assert_eq!(refused.error().kind(), Refusal::Full);
                        note = refused.into_payload();
                        model::thread::yield_now();
                    }
                })
            })
            .collect();
        let mut came = BTreeSet::new();
        look_until(&mailbox, &sleep, |mail| {
            assert!(mail.posts.len() <= 1);
            for post in mail.posts {
                let Post::Notify { note, .. } = post else { panic!("another post") };
                assert!(came.insert(note.downcast::<u8>().unwrap()), "a note came twice");
            }
            came.len() == 3
        });
        join(posters);
    });
}

#[test]
fn model_a_post_beside_the_end_is_dropped_or_comes_back() {
    check(|| {
        let (mailbox, handle, _) = mailbox(100);
        let alive = Arc::new(());
        let refused = Arc::new(Mutex::new(0));
        let posters: Vec<_> = (0..3)
            .map(|_| {
                let (handle, alive, refused) = (handle.clone(), alive.clone(), refused.clone());
                spawn(move || {
                    dawdle();
                    if let Err(back) = handle.call(move |_| drop(alive)) {
                        assert_eq!(back.error().kind(), Refusal::Stopped);
                        *refused.lock().unwrap() += 1;
                    }
                })
            })
            .collect();
        dawdle();
        mailbox.end();
        join(posters);
        assert_eq!(Arc::strong_count(&alive), 1, "a post was neither dropped nor given back");
        assert!(mailbox.take().posts.is_empty() && *refused.lock().unwrap() <= 3);
        assert_eq!(handle.close(id(1)).unwrap_err().kind(), Refusal::Stopped);
    });
}
