//! Episodes, and the log as unit tests see it.

pub(crate) mod kept;

use super::*;

/// The last lines that `code` logs.
fn lines(code: impl FnOnce()) -> Vec<String> {
    let (lines, ()) = kept::lines_of(code);
    assert!(lines.iter().all(|(level, _)| *level == log::Level::Info));
    lines.into_iter().map(|(_, line)| line).collect()
}

#[test]
fn what_was_not_logged_is_logged_as_a_number_at_the_end_and_once() {
    let note = |episode: &mut Episode, count: u64| {
        let begun = (0..count).filter_map(|now| episode.note(now)).count();
        assert_eq!(begun, usize::from(count > 0));
    };
    let note_common = |episode: &CommonEpisode, count: u64| {
        let begun = (0..count).filter_map(|now| episode.note(now)).count();
        assert_eq!(begun, usize::from(count > 0));
    };
    for count in 0..4 {
        let more = match count {
            0 | 1 => Vec::new(),
            _ => vec![format!("a test: {} more times, not logged", count - 1)],
        };
        let mut episode = Episode::new("a test");
        note(&mut episode, count);
        assert_eq!(lines(|| episode.close()), more);
        assert_eq!(lines(|| drop(episode)), [] as [&str; 0]);
        let common = CommonEpisode::new("a test");
        note_common(&common, count);
        assert_eq!(lines(|| common.close()), more);
        assert_eq!(lines(|| drop(common)), [] as [&str; 0]);
        // What is not closed is closed when it is dropped.
        let mut episode = Episode::new("a test");
        note(&mut episode, count);
        assert_eq!(lines(|| drop(episode)), more);
        let common = CommonEpisode::new("a test");
        note_common(&common, count);
        assert_eq!(lines(|| drop(common)), more);
    }
}

#[test]
fn the_first_of_an_episode_is_logged_and_the_rest_are_counted() {
    let mut episode = Episode::new("a test");
    assert_eq!(episode.note(5), Some(Earlier(0)));
    for now in 6..100 {
        assert_eq!(episode.note(now), None);
    }
    assert_eq!(episode.end(99 + OVER - 1), None);
    assert_eq!(episode.end(99 + OVER), Some(95));
    assert_eq!(episode.end(u64::MAX), None);
}

#[test]
fn an_episode_lasts_as_long_as_the_pauses_are_short() {
    let mut episode = Episode::new("a test");
    assert!(episode.note(0).is_some());
    assert_eq!(episode.note(OVER - 1), None);
    assert_eq!(episode.note(2 * OVER - 2), None);
    let earlier = episode.note(3 * OVER - 2).unwrap();
    assert_eq!(earlier.to_string(), " (and 2 times before, not logged)");
    assert_eq!(episode.note(3 * OVER - 1), None);
}

#[test]
fn a_lone_trouble_says_nothing_of_others() {
    let mut episode = Episode::new("a test");
    assert_eq!(episode.note(0).unwrap().to_string(), "");
    assert_eq!(episode.note(OVER).unwrap().to_string(), "");
}
