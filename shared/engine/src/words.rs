//! Words that a text is searched for, all in one pass over it.

/// A set of words, each of a sort. Sorts are bits, so that what is found is their sum.
#[derive(Debug)]
pub(crate) struct Words {
    /// By the first letter.
    beginnings: Vec<Beginning>,
}

/// The words that begin with one letter.
#[derive(Clone, Debug, Default)]
struct Beginning {
    /// Bits for the letters that come second, by their five low bits: few places of a text need a closer look.
    seconds: u32,
    words: Vec<(&'static str, u16)>,
}

impl Words {
    /// A set of words in lower case, of two letters at least; others are never found.
    pub(crate) fn new(words: impl IntoIterator<Item = (&'static str, u16)>) -> Self {
        let mut beginnings = vec![Beginning::default(); 256];
        for (word, sort) in words {
            if let [first, second, ..] = word.as_bytes()
                && let Some(beginning) = beginnings.get_mut(usize::from(*first))
            {
                beginning.seconds |= bit(*second);
                beginning.words.push((word, sort));
            }
        }
        Self { beginnings }
    }

    /// The sorts of the words that stand anywhere in a text, in letters of either case.
    pub(crate) fn find(&self, text: &str) -> u16 {
        let text = text.as_bytes();
        let mut found = 0;
        for (at, pair) in text.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            let Some(beginning) = self.beginnings.get(usize::from(first.to_ascii_lowercase())) else {
                continue;
            };
            if beginning.seconds & bit(*second) == 0 {
                continue;
            }
            for (word, sort) in &beginning.words {
                let here = text.get(at..at + word.len());
                if here.is_some_and(|here| here.eq_ignore_ascii_case(word.as_bytes())) {
                    found |= sort;
                }
            }
        }
        found
    }
}

/// Letters of either case have the same bit.
fn bit(letter: u8) -> u32 {
    1 << (letter & 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 6] = ["ab", "abc", "bca", "a/b", "cc;", "aab"];

    proptest! {
        #[test]
        fn a_pass_finds_what_a_search_for_each_word_does(text in "[abcAC/; é]{0,12}") {
            let sort = |at: usize| 1 << at;
            let words = Words::new(WORDS.iter().enumerate().map(|(at, word)| (*word, sort(at))));
            let lower = text.to_ascii_lowercase();
            let contained = WORDS.iter().enumerate().filter(|(_, word)| lower.contains(**word));
            prop_assert_eq!(words.find(&text), contained.map(|(at, _)| sort(at)).sum::<u16>());
        }
    }
}
