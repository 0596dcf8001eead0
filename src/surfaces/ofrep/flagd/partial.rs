//! Long JSON in slices: read, and written in canonical form, with a stack of its own in the place of recursion.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::reader::{NotJson, Reader};
use super::value::{JsonValue, Members, write_text};

/// Members of an object that are put into order at its end. Those of a longer one are while they come, or else its end would take
/// longer than all that was before it.
const SORTED_AT_ONCE: usize = 1 << 10;

/// A value that is being read: lists and objects that have begun.
#[derive(Default)]
pub(super) struct PartialValue {
    open: Vec<Open>,
}

enum Open {
    List(Vec<JsonValue>),
    /// The last member's value is not there yet.
    Object(Members),
    /// With the name of the member whose value is not there yet.
    Long(BTreeMap<Rc<str>, JsonValue>, Rc<str>),
}

impl PartialValue {
    /// Reads on for about so many bytes. `None`: there is more of it.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        budget: usize,
    ) -> Result<Option<JsonValue>, NotJson> {
        let until = reader.position().saturating_add(budget);
        loop {
            let mut value = match reader.peek() {
                Some(b'{') => {
                    reader.opens(b'{', self.open.len())?;
                    if !reader.takes(b'}') {
                        let first = vec![(reader.name()?, JsonValue::Null)];
                        self.open.push(Open::Object(first));
                        continue;
                    }
                    JsonValue::object(Members::new())
                }
                Some(b'[') => {
                    reader.opens(b'[', self.open.len())?;
                    if !reader.takes(b']') {
                        self.open.push(Open::List(Vec::new()));
                        continue;
                    }
                    JsonValue::list(Vec::new())
                }
                _ => reader.scalar()?,
            };
            // It may be the last one of what is around it, and that of what is around that.
            loop {
                value = match self.open.last_mut() {
                    None => return Ok(Some(value)),
                    Some(Open::List(list)) => {
                        list.push(value);
                        if reader.takes(b',') {
                            break;
                        }
                        reader.expect(b']')?;
                        JsonValue::list(std::mem::take(list))
                    }
                    Some(Open::Object(members)) => {
                        if let Some((_, last)) = members.last_mut() {
                            *last = value;
                        }
                        if reader.takes(b',') {
                            let name = reader.name()?;
                            if members.len() < SORTED_AT_ONCE {
                                members.push((name, JsonValue::Null));
                                break;
                            }
                            let sorted = std::mem::take(members).into_iter().collect();
                            self.open.pop();
                            self.open.push(Open::Long(sorted, name));
                            break;
                        }
                        reader.expect(b'}')?;
                        JsonValue::object(std::mem::take(members))
                    }
                    Some(Open::Long(members, name)) => {
                        members.insert(Rc::clone(name), value);
                        if reader.takes(b',') {
                            *name = reader.name()?;
                            break;
                        }
                        reader.expect(b'}')?;
                        let members = std::mem::take(members).into_iter();
                        JsonValue::Object(Rc::new(members.collect()))
                    }
                };
                self.open.pop();
            }
            if reader.position() >= until {
                return Ok(None);
            }
        }
    }
}

/// A value that is being written: itself and, one in the other, the lists and objects that have begun, each with the place of
/// what comes next.
pub(super) struct PartialText {
    open: Vec<(JsonValue, usize)>,
}

impl PartialText {
    /// Writes this value.
    pub(super) fn new(value: JsonValue) -> Self {
        Self {
            open: vec![(value, 0)],
        }
    }

    /// Writes about so many bytes more. Whether that is all.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, budget: usize) -> bool {
        let until = out.len().saturating_add(budget);
        while let Some((value, place)) = self.open.last_mut() {
            let at = *place;
            *place += 1;
            let (begins, ends, next) = match value {
                JsonValue::List(list) => (b'[', b']', list.get(at).map(|value| (None, value))),
                JsonValue::Object(members) => {
                    let next = members.get(at);
                    (b'{', b'}', next.map(|(name, value)| (Some(name), value)))
                }
                value => {
                    value.write(out);
                    self.open.pop();
                    continue;
                }
            };
            if at == 0 {
                out.push(begins);
            }
            let Some((name, value)) = next else {
                out.push(ends);
                self.open.pop();
                continue;
            };
            if at > 0 {
                out.push(b',');
            }
            if let Some(name) = name {
                write_text(name, out);
                out.push(b':');
            }
            match value {
                JsonValue::List(_) | JsonValue::Object(_) => {
                    let value = value.clone();
                    self.open.push((value, 0));
                }
                value => value.write(out),
            }
            if out.len() >= until {
                return false;
            }
        }
        true
    }
}
