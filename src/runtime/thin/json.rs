//! Drops members of the API server's JSON that no cache keeps, while the JSON is read. Pure: bytes in, bytes
//! out, in pieces of any size.

use memchr::memchr2;

/// Answer that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server's answer is not JSON: unexpected byte {0:#04x}")]
pub struct NotJson(u8);

/// Container whose members are copied or dropped one by one. All others are copied or dropped as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// List, or event of a watch.
    Answer,
    /// `items` of a list.
    Items,
    Object,
    Metadata,
    Annotations,
}

/// Treatment of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Copy,
    Drop,
    /// Copied member by member; a value of another type is copied as a whole.
    Enter(Scope),
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Step {
    Value(Fate),
    /// Inside of a string, or of an array or object of this depth.
    Inside {
        copied: bool,
        depth: usize,
        text: Text,
    },
    /// Inside of a number, `true`, `false` or `null`.
    Word {
        copied: bool,
    },
    /// Before a member's key, or after its value.
    Member,
    Key {
        escaped: bool,
    },
    Colon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// State between two pieces of one answer.
#[derive(Debug)]
pub struct Thinner {
    /// Prefix of the annotations to keep; `None`: objects keep no annotations and finalizers, but labels.
    annotations: Option<&'static str>,
    /// Open containers, each with true once it has a member in the output.
    scopes: Vec<(Scope, bool)>,
    step: Step,
    /// Key of the current member, as it was read, with its quotes.
    key: Vec<u8>,
}

impl Thinner {
    /// Keeps of an object's metadata the annotations with this prefix and the finalizers; with `None` neither
    /// of them, but the labels. Drops managedFields, ownerReferences, generateName and selfLink.
    pub fn new(annotations: Option<&'static str>) -> Self {
        Self {
            annotations,
            scopes: Vec::new(),
            step: Step::Value(Fate::Enter(Scope::Answer)),
            key: Vec::new(),
        }
    }

    /// Appends what stays of the next piece of the answer to `out`.
    ///
    /// # Errors
    /// Fails where the answer is not JSON. Values that it copies or drops as a whole it does not check.
    pub fn thin(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
        while let Some((&byte, rest)) = piece.split_first() {
            match self.step {
                Step::Inside { copied, depth, text } => {
                    let read = self.inside(piece, copied, depth, text, out);
                    piece = &piece[read..];
                    continue;
                }
                Step::Word { copied } => {
                    if matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace() {
                        self.end_value();
                        continue; // the byte belongs to the container
                    }
                    if copied {
                        out.push(byte);
                    }
                }
                // Watches separate their events by a newline.
                Step::Value(_) if byte.is_ascii_whitespace() && self.scopes.is_empty() => out.push(byte),
                Step::Value(_) | Step::Member | Step::Colon if byte.is_ascii_whitespace() => {}
                Step::Value(fate) => self.begin_value(byte, fate, out)?,
                Step::Member => self.member(byte, out)?,
                Step::Key { escaped } => {
                    self.key.push(byte);
                    self.step = match byte {
                        b'"' if !escaped => Step::Colon,
                        b'\\' if !escaped => Step::Key { escaped: true },
                        _ => Step::Key { escaped: false },
                    };
                }
                Step::Colon if byte == b':' => {
                    let fate = self.fate();
                    if fate != Fate::Drop {
                        self.separate(out);
                        out.append(&mut self.key);
                        out.push(byte);
                    }
                    self.key.clear();
                    self.step = Step::Value(fate);
                }
                Step::Colon => return Err(NotJson(byte)),
            }
            piece = rest;
        }
        Ok(())
    }

    /// Reads on inside of a string, array or object; returns the number of bytes read.
    fn inside(
        &mut self,
        piece: &[u8],
        copied: bool,
        mut depth: usize,
        mut text: Text,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut read = 0;
        let mut has_ended = false;
        while read < piece.len() && !has_ended {
            match text {
                Text::Escaped => {
                    text = Text::Inside;
                    read += 1;
                }
                Text::Inside => match memchr2(b'"', b'\\', &piece[read..]) {
                    Some(at) => {
                        read += at + 1;
                        text = if piece[read - 1] == b'"' {
                            Text::Outside
                        } else {
                            Text::Escaped
                        };
                        has_ended = text == Text::Outside && depth == 0;
                    }
                    None => read = piece.len(),
                },
                Text::Outside => {
                    match piece[read] {
                        b'"' => text = Text::Inside,
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    read += 1;
                    has_ended = text == Text::Outside && depth == 0;
                }
            }
        }
        if copied {
            out.extend_from_slice(&piece[..read]);
        }
        self.step = Step::Inside { copied, depth, text };
        if has_ended {
            self.end_value();
        }
        read
    }

    fn begin_value(&mut self, byte: u8, fate: Fate, out: &mut Vec<u8>) -> Result<(), NotJson> {
        let is_element = matches!(self.scopes.last(), Some((Scope::Items, _)));
        match byte {
            b']' if is_element => {
                self.close(byte, out);
                return Ok(());
            }
            b',' if is_element => return Ok(()),
            b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {}
            _ => return Err(NotJson(byte)),
        }
        if is_element {
            self.separate(out);
        }
        let copied = fate != Fate::Drop;
        if copied {
            out.push(byte);
        }
        self.step = match (byte, fate) {
            (b'[', Fate::Enter(Scope::Items)) => {
                self.scopes.push((Scope::Items, false));
                Step::Value(Fate::Enter(Scope::Object))
            }
            (b'{', Fate::Enter(scope)) if scope != Scope::Items => {
                self.scopes.push((scope, false));
                Step::Member
            }
            (b'"', _) => Step::Inside {
                copied,
                depth: 0,
                text: Text::Inside,
            },
            (b'{' | b'[', _) => Step::Inside {
                copied,
                depth: 1,
                text: Text::Outside,
            },
            _ => Step::Word { copied },
        };
        Ok(())
    }

    fn member(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), NotJson> {
        match byte {
            b'"' => {
                self.key.push(byte);
                self.step = Step::Key { escaped: false };
            }
            b',' => {}
            b'}' => self.close(byte, out),
            _ => return Err(NotJson(byte)),
        }
        Ok(())
    }

    fn close(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        self.scopes.pop();
        self.end_value();
    }

    /// Continues after a value, in the container that it is in.
    fn end_value(&mut self) {
        self.step = match self.scopes.last() {
            None => Step::Value(Fate::Enter(Scope::Answer)),
            Some((Scope::Items, _)) => Step::Value(Fate::Enter(Scope::Object)),
            Some(_) => Step::Member,
        };
    }

    /// Writes the comma before every member but the first.
    fn separate(&mut self, out: &mut Vec<u8>) {
        if let Some((_, has_members)) = self.scopes.last_mut()
            && std::mem::replace(has_members, true)
        {
            out.push(b',');
        }
    }

    /// Returns the treatment of the current member's value.
    fn fate(&self) -> Fate {
        let key: String = serde_json::from_slice(&self.key).unwrap_or_default();
        let keep = |condition| if condition { Fate::Copy } else { Fate::Drop };
        let Some((scope, _)) = self.scopes.last() else {
            return Fate::Copy;
        };
        match (scope, key.as_str()) {
            (Scope::Answer, "items") => Fate::Enter(Scope::Items),
            (Scope::Answer, "object") => Fate::Enter(Scope::Object),
            (Scope::Object, "metadata") => Fate::Enter(Scope::Metadata),
            (Scope::Metadata, "annotations") if self.annotations.is_some() => Fate::Enter(Scope::Annotations),
            (Scope::Metadata, "finalizers") => keep(self.annotations.is_some()),
            (Scope::Metadata, "labels") => keep(self.annotations.is_none()),
            (
                Scope::Metadata,
                "annotations" | "managedFields" | "ownerReferences" | "generateName" | "selfLink",
            ) => Fate::Drop,
            (Scope::Annotations, name) => {
                keep(self.annotations.is_some_and(|prefix| name.starts_with(prefix)))
            }
            _ => Fate::Copy,
        }
    }
}

#[cfg(test)]
mod tests;
