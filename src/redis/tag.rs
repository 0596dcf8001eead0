//! Scripts whose replies say which command they answer.
//!
//! A gateway may deliver a reply to the wrong request: when a client gave up and closed its connection, webdis
//! 0.1.9 writes the reply to whoever has that file descriptor by then. The document of one tenant would go to
//! another. So each script is sent with an unpredictable tag and returns it, and a reply without it is not used.
//!
//! Plain commands carry no tag: the snapshot's pages have a digest, and of the others only success is looked at.

use std::fmt;

use super::{Failure, Reply};

/// What one command is known by.
#[derive(Clone, PartialEq, Eq)]
pub struct Tag(String);

/// Around a script: the tag is the last argument, which the script itself does not see, and the last string that
/// comes back.
pub(super) const BEFORE: &str = "local tag=table.remove(ARGV) local reply=(function()\n";
pub(super) const AFTER: &str = "\nend)() reply[#reply+1]=tag return reply";

impl Tag {
    /// A tag; `number` must be random.
    pub fn new(number: u64) -> Self {
        Self(format!("{number:016x}"))
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The reply of the script itself.
    ///
    /// ```
    /// use flag_definitions_filter::redis::{Failure, Reply, Tag};
    /// let reply = || Reply::array([&b"full"[..], b"0000000000000007"]);
    /// assert_eq!(Tag::new(7).take_off(reply()), Ok(Reply::array([&b"full"[..]])));
    /// assert_eq!(Tag::new(8).take_off(reply()), Err(Failure::Misdirected));
    /// ```
    ///
    /// # Errors
    /// [`Failure::Misdirected`] when the reply has another tag, or none.
    pub fn take_off<'a>(&self, reply: Reply<'a>) -> Result<Reply<'a>, Failure> {
        let Reply::Array(mut strings) = reply else {
            return Err(Failure::Misdirected);
        };
        match strings.pop() {
            Some(tag) if *tag == *self.0.as_bytes() => Ok(Reply::Array(strings)),
            _ => Err(Failure::Misdirected),
        }
    }
}

/// Without the tag: whoever knows it could forge a reply.
impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Script};
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn array(strings: &[&'static str]) -> Reply<'static> {
        Reply::Array(strings.iter().map(|text| text.as_bytes().into()).collect())
    }

    #[test]
    fn a_script_is_sent_with_its_tag_as_last_argument() {
        static SCRIPT: Script = Script::new("return {} -- nothing");
        let tag = Tag::new(0xab);
        for command in [
            Command::eval(&SCRIPT, ["k"], ["a"]),
            Command::eval_ro(&SCRIPT, ["k"], ["a"]),
        ] {
            assert!(command.has_tag());
            let (words, tagged) = (command.words(), command.tagged_words(&tag));
            assert_eq!(*tagged[0], *words[0]);
            let script = std::str::from_utf8(&tagged[1]).unwrap();
            assert!(script.contains("return {} -- nothing\nend"), "{script}");
            assert_eq!(tagged[2..5], words[2..]);
            assert_eq!(*tagged[5], *b"00000000000000ab");
        }
    }

    #[test]
    fn other_commands_have_none() {
        for command in [Command::get("EVAL"), Command::zadd_nx("k", 1, "m")] {
            assert!(!command.has_tag(), "{command:?}");
            assert_eq!(command.tagged_words(&Tag::new(1)), command.words());
        }
    }

    #[test]
    fn only_the_reply_with_this_tag_is_used() {
        let tag = Tag::new(7);
        let own = "0000000000000007";
        assert_eq!(tag.take_off(array(&["a", own])), Ok(array(&["a"])));
        assert_eq!(tag.take_off(array(&[own])), Ok(array(&[])));
        for reply in [
            array(&["a", "0000000000000008"]),
            array(&[own, "a"]),
            array(&["a"]),
            array(&[]),
            Reply::Nil,
            Reply::Bytes(own.as_bytes().into()),
            Reply::Status(b"OK"),
            Reply::Integer(7),
        ] {
            assert_eq!(tag.take_off(reply), Err(Failure::Misdirected));
        }
    }

    #[test]
    fn a_tag_is_not_shown() {
        assert_eq!(format!("{:?}", Tag::new(7)), "Tag");
    }
}
