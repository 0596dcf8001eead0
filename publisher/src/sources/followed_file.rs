//! A file that is followed as it changes: the kernel tells at once, and a look twice a second finds what it does not tell.
//!
//! Folders of network file systems tell nothing, and a file may be swapped by a link far away from it (a mounted ConfigMap
//! swaps `..data`). So the kernel's word is a hint to look now, and no more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::debug;

/// Between two looks at a file of which the kernel tells nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Longest sleep without a look whether to stop.
const NAP: Duration = Duration::from_millis(100);

/// Between a notice and the look, so that a busy folder costs fifty looks a second, and most writes are complete.
const SPACING: Duration = Duration::from_millis(20);

/// A file that was written so short a time before it was read may be written once more without looking different: it is
/// read again after that.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// Shortest time between two reads of the same file that could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(400);

/// A file that is followed.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// What tells two states of a file apart, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: SystemTime,
    /// When its content, owner, permissions or name changed last, in seconds and nanoseconds.
    changed: (i64, i64),
    length: u64,
    /// Another one where the file was replaced.
    file: (u64, u64),
}

/// What was read last.
#[derive(Debug, Default)]
struct Seen {
    /// Of the file, before it was read; `None`: there was none.
    stamp: Option<Stamp>,
    became: Became,
    /// Whether a later write is sure to look different.
    is_settled: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
enum Became {
    Good,
    #[default]
    Refused,
    /// It could not be read then.
    Failed(Instant),
}

/// What a look at the file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is what was read.
    Same,
    /// It is what was refused, or could not be read a moment ago.
    StillRefused,
    /// It has to be read. The stamp that it has now; `None`: there is no file.
    Changed(Option<Stamp>),
}

impl FollowedFile {
    /// The file at this path. Nothing was read of it yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: Mutex::default(),
        }
    }

    /// Reads it. What comes of that decides whether the same file is looked at as good or as refused; `was_read` says of an
    /// error that it is of the content. What could not be read has to be read again soon.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<T, E>(
        &self,
        read: impl FnOnce(&Path) -> Result<T, E>,
        was_read: impl FnOnce(&E) -> bool,
    ) -> Result<T, E> {
        let stamp = Stamp::of(&self.path);
        let is_settled = stamp.is_none_or(Stamp::is_settled);
        let result = read(&self.path);
        let became = match &result {
            Ok(_) => Became::Good,
            Err(problem) if was_read(problem) => Became::Refused,
            Err(_) => Became::Failed(Instant::now()),
        };
        *self.seen() = Seen {
            stamp,
            became,
            is_settled,
        };
        result
    }

    /// Looks at it without reading it.
    pub fn look(&self) -> Look {
        let stamp = Stamp::of(&self.path);
        let seen = self.seen();
        if stamp != seen.stamp || (!seen.is_settled && stamp.is_none_or(Stamp::is_settled)) {
            return Look::Changed(stamp);
        }
        match seen.became {
            Became::Good => Look::Same,
            Became::Failed(at) if stamp.is_some() && at.elapsed() >= RETRY_AFTER => {
                Look::Changed(stamp)
            }
            Became::Failed(_) | Became::Refused => Look::StillRefused,
        }
    }

    /// Hands over what each look shows, from now on until `stop` is set.
    pub fn watch(&self, stop: &AtomicBool, mut each: impl FnMut(Look)) {
        let notices = Notices::of(&self.path);
        while !stop.load(Ordering::Relaxed) {
            each(self.look());
            notices.wait(stop);
        }
    }

    // A thread that panicked while it held the lock left what was seen, not half of it.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    /// Whether whatever is written from now on looks different. A time that is still to come says nothing.
    fn is_settled(self) -> bool {
        let age = SystemTime::now().duration_since(self.modified);
        age.map_or(true, |age| age >= SETTLES_AFTER)
    }
}

/// What the kernel tells of the folders that a file is in.
struct Notices {
    told: Receiver<()>,
    /// Tells as long as it lives. `None`: the kernel tells nothing.
    _watcher: Option<RecommendedWatcher>,
}

impl Notices {
    fn of(path: &Path) -> Self {
        let (tell, told) = sync_channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            // One that waits already says as much.
            let _ = tell.try_send(());
        });
        let watcher = watcher.and_then(|mut watcher| {
            // The folder, as the file itself may be replaced; and that of what a link points to.
            let target = std::fs::canonicalize(path).ok();
            let folders = [Some(path), target.as_deref()].into_iter().flatten();
            for folder in folders.filter_map(Path::parent) {
                let folder = match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                };
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        if let Err(problem) = &watcher {
            debug!(%problem, file = %path.display(), "the kernel does not tell of changes; the file is looked at");
        }
        Self {
            told,
            _watcher: watcher.ok(),
        }
    }

    /// Waits until something may have changed, a look is due, or `stop` is set.
    fn wait(&self, stop: &AtomicBool) {
        let began = Instant::now();
        while began.elapsed() < LOOK_INTERVAL && !stop.load(Ordering::Relaxed) {
            if self._watcher.is_none() {
                std::thread::sleep(NAP);
            } else if self.told.recv_timeout(NAP).is_ok() {
                std::thread::sleep(SPACING);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::channel;

    fn write(path: &Path, text: &str, age: Duration) {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    fn is_changed(look: Look) -> bool {
        matches!(look, Look::Changed(_))
    }

    #[test]
    fn a_look_tells_a_changed_file_from_one_that_was_read_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let followed = FollowedFile::new(&path);
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) if text == "good" => Ok(()),
            _ => Err(()),
        };
        let old = Duration::from_secs(60);
        assert!(followed.read(read, |()| true).is_err(), "there is none");
        assert_eq!(followed.look(), Look::StillRefused);
        write(&path, "good", old);
        assert!(is_changed(followed.look()));
        followed.read(read, |()| true).unwrap();
        assert_eq!(followed.look(), Look::Same);
        write(&path, "{", old);
        assert!(is_changed(followed.look()));
        assert!(followed.read(read, |()| true).is_err());
        assert_eq!(followed.look(), Look::StillRefused);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(followed.look(), Look::Changed(None));
    }

    #[test]
    fn what_could_not_be_read_is_read_again_and_what_was_refused_waits_for_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, "good", Duration::from_secs(60));
        let followed = FollowedFile::new(&path);
        for (was_read, is_read_again) in [(true, false), (false, true)] {
            let fails = |_: &Path| Err::<(), ()>(());
            assert!(followed.read(fails, |()| was_read).is_err());
            assert_eq!(followed.look(), Look::StillRefused, "no sooner than that");
            std::thread::sleep(RETRY_AFTER);
            assert_eq!(is_changed(followed.look()), is_read_again);
        }
        // Permissions change neither its time nor its length.
        assert!(followed.read(|_| Err::<(), ()>(()), |()| true).is_err());
        std::thread::sleep(Duration::from_millis(20));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(is_changed(followed.look()));
    }

    #[test]
    fn a_file_that_was_just_written_is_read_once_more_when_it_is_older() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let followed = FollowedFile::new(&path);
        let read = || followed.read(|path| std::fs::read(path), |_| true).unwrap();
        write(&path, "a", Duration::ZERO);
        read();
        assert_eq!(followed.look(), Look::Same);
        std::thread::sleep(SETTLES_AFTER);
        assert!(is_changed(followed.look()));
        read();
        assert_eq!(followed.look(), Look::Same);
    }

    /// As a mounted ConfigMap does it: the file is a link through `..data`, which is swapped.
    #[test]
    fn a_swapped_link_is_seen_long_before_the_next_look() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (folder, text) in [("..1", "a"), ("..2", "b")] {
            std::fs::create_dir(at(folder)).unwrap();
            write(&at(folder).join("file"), text, Duration::from_secs(60));
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/file", at("file")).unwrap();
        let followed = FollowedFile::new(&at("file"));
        followed.read(|path| std::fs::read(path), |_| true).unwrap();
        let stop = AtomicBool::new(false);
        let (looked, looks) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                followed.watch(&stop, |look| {
                    let _ = looked.send((Instant::now(), is_changed(look)));
                });
            });
            assert!(!looks.recv().unwrap().1);
            std::thread::sleep(Duration::from_millis(150));
            std::os::unix::fs::symlink("..2", at("..new")).unwrap();
            std::fs::rename(at("..new"), at("..data")).unwrap();
            let swapped = Instant::now();
            let seen = looks.iter().find(|(_, changed)| *changed).unwrap().0;
            stop.store(true, Ordering::Relaxed);
            // Without a notice the look would come 350 ms later.
            assert!(seen.saturating_duration_since(swapped) < Duration::from_millis(200));
        });
    }
}
