//! Structured fields (RFC 9651), as far as this cache reads any. One that is malformed is read as nothing at all.

use std::convert::Infallible;
use std::fmt;

use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor};
use sfv::{BareItemFromInput, KeyRef, Parser};

/// What the value of a dictionary's member is to this cache; its parameters have no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// True, said or left out.
    True,
    /// An integer that is not negative.
    Number(u64),
    /// A string, whatever it says.
    Text,
    /// Anything else.
    Other,
}

/// The members of a dictionary (section 3.2), of each name the last.
pub(super) fn dictionary(field: &str) -> Option<Vec<(&str, Member)>> {
    Parser::new(field).parse_dictionary_with_visitor(Members(Vec::new())).ok()
}

/// A list of strings (section 3.1); parameters have no meaning. `None` where it holds something else too.
pub(super) fn strings(field: &str) -> Option<Vec<String>> {
    Parser::new(field).parse_list_with_visitor(Strings(Vec::new())).ok()
}

struct Members<'de>(Vec<(&'de str, Member)>);

impl<'de> DictionaryVisitor<'de> for Members<'de> {
    type Out = Vec<(&'de str, Member)>;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.0.retain(|(name, _)| *name != key.as_str());
        self.0.push((key.as_str(), Member::Other));
        Ok(self.0.last_mut().map(|(_, member)| Value(member)))
    }

    fn finish(self) -> Result<Self::Out, Infallible> {
        Ok(self.0)
    }
}

struct Value<'a>(&'a mut Member);

impl<'de> EntryVisitor<'de> for Value<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(move |item: BareItemFromInput<'de>| {
            *self.0 = match item {
                BareItemFromInput::Boolean(true) => Member::True,
                BareItemFromInput::Integer(number) => {
                    u64::try_from(i64::from(number)).map_or(Member::Other, Member::Number)
                }
                BareItemFromInput::String(_) => Member::Text,
                _ => Member::Other,
            };
            Ok::<_, Infallible>(Ignored)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

struct Strings(Vec<String>);

impl<'de> ListVisitor<'de> for Strings {
    type Out = Vec<String>;
    type Error = Infallible;

    fn entry(&mut self) -> Result<impl EntryVisitor<'de>, Infallible> {
        Ok(Text(&mut self.0))
    }

    fn finish(self) -> Result<Vec<String>, Infallible> {
        Ok(self.0)
    }
}

struct Text<'a>(&'a mut Vec<String>);

impl<'de> EntryVisitor<'de> for Text<'_> {
    type Error = fmt::Error;

    fn item(self) -> Result<impl ItemVisitor<'de>, fmt::Error> {
        Ok(move |item: BareItemFromInput<'de>| match item {
            BareItemFromInput::String(text) => {
                self.0.push(text.as_str().to_owned());
                Ok(Ignored)
            }
            _ => Err(fmt::Error),
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, fmt::Error> {
        Err::<Ignored, _>(fmt::Error)
    }
}
