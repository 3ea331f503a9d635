//! Where the elements of an XML document stand, to the byte.
//!
//! Reading only: the document is never written anew from what was read. What is not well-formed, or uses what S3 never
//! sends (a document type), is refused, and then nothing in it is touched.

use std::ops::Range;

/// How deep elements may be nested: a lifecycle document needs five levels.
const MAX_DEPTH: usize = 32;

/// An element and everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element<'a> {
    /// The name without a namespace prefix.
    pub name: &'a str,
    /// The namespace prefix with its colon; mostly empty.
    pub prefix: &'a str,
    /// From the first to behind the last byte of the element.
    pub span: Range<usize>,
    /// The same of what is between its tags; empty for `<a/>`.
    pub inner: Range<usize>,
    /// The elements directly in it.
    pub children: Vec<Element<'a>>,
    /// The text directly in it, entities resolved.
    pub text: String,
}

impl<'a> Element<'a> {
    /// The first child called `name`.
    pub fn child(&self, name: &str) -> Option<&Element<'a>> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The trimmed text of the first child called `name`.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }
}

/// A document that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not understood at byte {at}: {why}")]
pub struct XmlError {
    /// Where.
    pub at: usize,
    /// Why.
    pub why: String,
}

/// Reads a document and returns its root.
///
/// # Errors
/// It is not well-formed, or has a document type.
pub fn parse(document: &str) -> Result<Element<'_>, XmlError> {
    let mut reader = Reader { text: document, at: 0 };
    reader.eat("\u{feff}");
    reader.between_elements()?;
    if !reader.rest().starts_with('<') {
        return Err(reader.error("no element"));
    }
    let root = reader.element(0)?;
    reader.between_elements()?;
    if !reader.rest().is_empty() {
        return Err(reader.error("something behind the root"));
    }
    Ok(root)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, why: &str) -> XmlError {
        XmlError { at: self.at, why: why.to_owned() }
    }

    fn eat(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        self.at += if found { what.len() } else { 0 };
        found
    }

    /// Goes behind the next `end` and returns what was in front of it.
    fn up_to(&mut self, end: &str) -> Result<&'a str, XmlError> {
        let rest = self.rest();
        let found = rest.find(end).ok_or_else(|| self.error(&format!("{end:?} is missing")))?;
        self.at += found + end.len();
        Ok(&rest[..found])
    }

    fn spaces(&mut self) -> bool {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
        rest.len() > trimmed.len()
    }

    /// Spaces, comments and processing instructions outside of the root.
    fn between_elements(&mut self) -> Result<(), XmlError> {
        loop {
            self.spaces();
            if self.eat("<!--") {
                self.up_to("-->")?;
            } else if self.eat("<?") {
                self.up_to("?>")?;
            } else if self.rest().starts_with("<!") {
                return Err(self.error("a document type"));
            } else {
                return Ok(());
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, XmlError> {
        let rest = self.rest();
        let is_end = |c: char| c.is_whitespace() || matches!(c, '>' | '/' | '=' | '<' | '"' | '\'' | '&');
        let len = rest.find(is_end).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.error("a name is missing"));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    /// The rest of a start tag; whether it also ends the element.
    fn attributes(&mut self) -> Result<bool, XmlError> {
        loop {
            let spaced = self.spaces();
            if self.eat("/>") {
                return Ok(true);
            }
            if self.eat(">") {
                return Ok(false);
            }
            if !spaced {
                return Err(self.error("a tag does not end"));
            }
            self.name()?;
            self.spaces();
            if !self.eat("=") {
                return Err(self.error("an attribute has no value"));
            }
            self.spaces();
            let quote = if self.eat("\"") { "\"" } else { "'" };
            if quote == "'" && !self.eat("'") {
                return Err(self.error("an attribute has no quotes"));
            }
            self.up_to(quote)?;
        }
    }

    fn element(&mut self, depth: usize) -> Result<Element<'a>, XmlError> {
        if depth >= MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        let start = self.at;
        self.at += 1; // the caller has seen "<"
        let full = self.name()?;
        let (prefix, name) = full.find(':').map_or(("", full), |colon| full.split_at(colon + 1));
        let empty = self.attributes()?;
        let mut element = Element {
            name,
            prefix,
            span: start..self.at,
            inner: self.at..self.at,
            children: Vec::new(),
            text: String::new(),
        };
        if empty {
            return Ok(element);
        }
        loop {
            let text = self.rest();
            let len = text.find('<').ok_or_else(|| self.error(&format!("{full} does not end")))?;
            element.text.push_str(&self.resolved(&text[..len])?);
            self.at += len;
            if self.eat("<!--") {
                self.up_to("-->")?;
            } else if self.eat("<![CDATA[") {
                element.text.push_str(self.up_to("]]>")?);
            } else if self.eat("<?") {
                self.up_to("?>")?;
            } else if self.rest().starts_with("</") {
                element.inner.end = self.at;
                self.at += 2;
                if self.name()? != full {
                    return Err(self.error(&format!("{full} is not what ends here")));
                }
                self.spaces();
                if !self.eat(">") {
                    return Err(self.error("a tag does not end"));
                }
                element.span.end = self.at;
                return Ok(element);
            } else {
                element.children.push(self.element(depth + 1)?);
            }
        }
    }

    /// Text with its entities resolved.
    fn resolved(&self, text: &str) -> Result<String, XmlError> {
        let mut resolved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find('&') {
            resolved.push_str(&rest[..start]);
            let end = rest[start..].find(';').ok_or_else(|| self.error("an entity does not end"))?;
            let name = &rest[start + 1..start + end];
            let character = match name {
                "lt" => Some('<'),
                "gt" => Some('>'),
                "amp" => Some('&'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                _ => match (name.strip_prefix("#x"), name.strip_prefix('#')) {
                    (Some(hex), _) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
                    (None, Some(decimal)) => decimal.parse().ok().and_then(char::from_u32),
                    (None, None) => None,
                },
            };
            resolved.push(character.ok_or_else(|| self.error(&format!("unknown entity {name:?}")))?);
            rest = &rest[start + end + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }
}

/// Text as it is written between tags.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
