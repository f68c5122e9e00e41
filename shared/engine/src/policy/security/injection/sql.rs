//! SQL.

use super::rules::{
    At, Class, Rule, View, anywhere, begins_word, call, first_word, is_of_word, near, row, word,
};

/// What may stand before an operand and leaves it a constant.
const SIGNS: [char; 6] = [' ', '(', '!', '~', '+', '-'];
/// What joins one condition to another.
const OPERATORS: &[&str] = &["or", "and", "xor", "having", "||", "&&"];
/// The same, and what columns are numbered behind.
const CLAUSES: &[&str] = &["or", "and", "xor", "having", "||", "&&", "order by", "group by"];

pub(super) const RULES: [Rule; 16] = [
    row("sqli-union", Class::Sqli, (1, 5), View::Folded, &["union"], union),
    row("sqli-tautology", Class::Sqli, (1, 5), View::Folded, OPERATORS, tautology),
    row("sqli-constant", Class::Sqli, (1, 5), View::Folded, CLAUSES, constant_before_a_comment),
    row("sqli-call", Class::Sqli, (1, 5), View::Folded, OPERATORS, call_compared),
    row("sqli-quote-operator", Class::Sqli, (1, 5), View::Folded, &["'", "\"", "`"], quote_operator),
    row("sqli-quote-comment", Class::Sqli, (1, 5), View::Folded, &["'", "\""], quote_comment),
    row("sqli-stacked", Class::Sqli, (1, 5), View::Folded, &[";"], |at| statement(first_word(at.after))),
    row("sqli-subselect", Class::Sqli, (1, 5), View::Folded, &["("], subselect),
    row(
        "sqli-function",
        Class::Sqli,
        (1, 5),
        View::Folded,
        &[
            "sleep",
            "benchmark",
            "pg_sleep",
            "extractvalue",
            "updatexml",
            "load_file",
            "xp_cmdshell",
            "waitfor",
            "dbms_pipe",
            "utl_http",
            "randomblob",
        ],
        function,
    ),
    row(
        "sqli-catalogue",
        Class::Sqli,
        (1, 5),
        View::Folded,
        &[
            "information_schema.",
            "pg_catalog.",
            "sqlite_master",
            "mysql.user",
            "@@version",
            "@@datadir",
            "sys.objects",
            "sysobjects where",
        ],
        begins_word,
    ),
    row("sqli-outfile", Class::Sqli, (1, 5), View::Folded, &["into outfile", "into dumpfile"], quoted_next),
    row(
        "sqli-statement",
        Class::Sqli,
        (2, 4),
        View::Folded,
        &["drop", "delete", "insert", "update", "truncate", "alter", "exec", "declare"],
        bare_statement,
    ),
    row("sqli-constant-end", Class::Sqli, (2, 5), View::Folded, OPERATORS, constant_at_the_end),
    row("sqli-quotes", Class::Sqli, (3, 4), View::Folded, &["'='", "'||'", "'+'", "' '"], anywhere),
    row("sqli-select", Class::Sqli, (3, 3), View::Folded, &["select"], |at| {
        word(at) && near(at.after, 100).contains(" from ")
    }),
    row("sqli-quote", Class::Sqli, (4, 3), View::Folded, &["'", "--", "#"], anywhere),
];

/// `union select`, `union all (select`.
fn union(at: At<'_>) -> bool {
    let (next, rest) = first_word(at.after.trim_start_matches([' ', '(']));
    let next = if matches!(next, "all" | "distinct") {
        first_word(rest.trim_start_matches([' ', '('])).0
    } else {
        next
    };
    word(at) && next == "select"
}

/// A comparison of two constants: `or 1=1`, `and 'a' like 'a`, `|| 2>1`.
fn tautology(at: At<'_>) -> bool {
    let Some(rest) = operand(at).and_then(constant) else { return false };
    let rest = rest.trim_start_matches([' ', ')']);
    let behind = rest.trim_start_matches(['=', '<', '>', '!', '^']);
    let behind = match first_word(rest) {
        _ if behind.len() < rest.len() => behind,
        ("like" | "rlike" | "regexp", behind) => behind,
        ("in", behind) if behind.trim_start().starts_with('(') => behind,
        ("between", behind) if near(behind, 40).contains(" and ") => behind,
        ("is", behind) => {
            let truth = behind.trim_start();
            return matches!(
                first_word(truth.strip_prefix("not ").unwrap_or(truth)).0,
                "null" | "true" | "false"
            );
        }
        _ => return false,
    };
    constant(behind.trim_start_matches(SIGNS)).is_some()
}

/// A condition that is a constant, with the rest of the statement made a comment: `or 1-- -`, `|| true#`.
fn constant_before_a_comment(at: At<'_>) -> bool {
    let comment = operand(at).and_then(truth).and_then(comment);
    comment.is_some_and(|comment| comment.chars().all(|letter| matches!(letter, ' ' | '+' | '-' | '*' | '/')))
}

/// The same behind a single value, where the text ends: `1 or 1`, `x' or true`. People write `2 or 3` as well.
fn constant_at_the_end(at: At<'_>) -> bool {
    let before = at.before.trim_end();
    let ends = operand(at).is_some_and(|operand| {
        let is_text = operand.starts_with(['\'', '"']) && !is_open(operand);
        !is_text && truth(operand).is_some_and(|rest| rest.trim_start_matches([' ', ')']).is_empty())
    });
    ends && !before.is_empty() && !before.contains(' ')
}

/// A call of what databases alone have, compared: `and ascii(substr(database(),1,1))>64`, `or user()='root'`.
fn call_compared(at: At<'_>) -> bool {
    const ALWAYS: [&str; 9] =
        ["ascii", "ord", "substr", "substring", "mid", "unhex", "group_concat", "char_length", "bit_length"];
    // Those that are words of other languages too.
    const WITH_A_CALL_OR_NOTHING: [&str; 16] = [
        "char",
        "chr",
        "concat",
        "concat_ws",
        "hex",
        "left",
        "right",
        "length",
        "lower",
        "upper",
        "version",
        "database",
        "user",
        "current_user",
        "schema",
        "cast",
    ];
    let Some((name, rest)) = operand(at).map(first_word) else { return false };
    let Some(arguments) = rest.strip_prefix('(') else { return false };
    let arguments = near(arguments, 80);
    let first = arguments.split(')').next().unwrap_or_default();
    let is_call = ALWAYS.contains(&name)
        || WITH_A_CALL_OR_NOTHING.contains(&name) && (first.contains('(') || first.trim().is_empty());
    is_call
        && (arguments.contains(['=', '<', '>'])
            || [" like ", " in (", " in(", " between "].iter().any(|operator| arguments.contains(operator)))
}

/// What an operator is applied to, without signs before it; `None` where the operator is a part of a word.
fn operand(at: At<'_>) -> Option<&str> {
    let is_word = at.found.starts_with(is_of_word);
    let glued = at.before.ends_with(|letter: char| letter.is_alphabetic() || letter == '_');
    let is_part = is_word && (glued || at.after.starts_with(is_of_word));
    (!is_part).then(|| without_signs(at.after))
}

fn without_signs(text: &str) -> &str {
    let rest = text.trim_start_matches(SIGNS);
    rest.strip_prefix("not ").unwrap_or(rest).trim_start_matches(SIGNS)
}

/// What follows a constant or a truth value.
fn truth(text: &str) -> Option<&str> {
    let (word, behind) = first_word(text);
    if matches!(word, "true" | "false" | "null") { Some(behind) } else { constant(text) }
}

/// Whether a text in quotes goes on to the end, so that what the statement has behind it closes it.
fn is_open(text: &str) -> bool {
    let Some(quote) = text.chars().next().filter(|quote| matches!(quote, '\'' | '"')) else { return false };
    text.get(1..).is_some_and(|inside| !inside.is_empty() && !inside.contains(quote))
}

/// What follows the beginning of a comment, if one begins here.
fn comment(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', ')', ';']);
    ["--", "#", "/*"].iter().find_map(|sign| text.strip_prefix(sign))
}

/// What follows a number or a text in quotes, of which the closing one may be missing at the end.
fn constant(text: &str) -> Option<&str> {
    if let Some(quote) = text.chars().next().filter(|quote| matches!(quote, '\'' | '"')) {
        let inside = text.get(1..)?;
        let Some((value, behind)) = inside.split_once(quote) else {
            return (inside.len() <= 24 && inside.chars().all(is_of_word)).then_some("");
        };
        return (value.chars().count() <= 24).then_some(behind);
    }
    let behind = number(text)?;
    (!behind.starts_with(is_of_word)).then_some(behind)
}

/// What follows a number: `1.5`, `1e3`, `0x1f`, `0b1`.
fn number(text: &str) -> Option<&str> {
    if let Some(digits) = text.strip_prefix("0x") {
        let behind = digits.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
        return (behind.len() < digits.len()).then_some(behind);
    }
    if let Some(digits) = text.strip_prefix("0b") {
        let behind = digits.trim_start_matches(['0', '1']);
        return (behind.len() < digits.len()).then_some(behind);
    }
    let is_digit = |digit: char| digit.is_ascii_digit();
    let behind = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let power = behind.strip_prefix('e').map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let behind = match power.filter(|power| power.starts_with(is_digit)) {
        Some(power) => power.trim_start_matches(is_digit),
        None => behind,
    };
    text.starts_with(is_digit).then_some(behind)
}

/// Whether a condition can end here.
fn ends(text: &str) -> bool {
    let text = text.trim_start_matches([' ', ')']);
    text.is_empty() || ["--", "#", ";", "/*"].iter().any(|end| text.starts_with(end))
}

/// A quote, then an operator or clause of SQL with what belongs to it: `' or name like '%a`, `') union`, `' or '1`, `'=0#`.
fn quote_operator(at: At<'_>) -> bool {
    let rest = at.after.trim_start_matches([' ', ')']);
    if constant_behind(rest) && opens(at) {
        return true;
    }
    if let Some(rest) = rest.strip_prefix("||").or_else(|| rest.strip_prefix("&&")) {
        return comparison(rest) || near(rest, 40).contains("(select");
    }
    let (operator, behind) = first_word(rest);
    match operator {
        "or" | "and" | "xor" | "having" => behind.starts_with([' ', '(']) && comparison(behind),
        "union" => {
            first_word(behind.trim_start_matches([' ', '('])).0.starts_with(['s', 'a', 'd'])
                && near(behind, 40).contains("select")
        }
        "order" | "group" => {
            let (by, column) = first_word(behind);
            by == "by" && column.trim_start().starts_with(|first: char| first.is_ascii_digit())
        }
        "limit" | "procedure" => behind.trim_start().starts_with(|first: char| first.is_ascii_digit()),
        _ => false,
    }
}

/// An operator with a constant, then a comment or, in a text that is open still, the end.
fn constant_behind(text: &str) -> bool {
    let compared = text.trim_start_matches(['=', '<', '>', '!', '^', '*']);
    let is_comparison = compared.len() < text.len();
    let operand = match first_word(text) {
        _ if is_comparison => compared,
        ("or" | "and" | "xor" | "having", behind) => behind,
        _ => match text.strip_prefix("||").or_else(|| text.strip_prefix("&&")) {
            Some(behind) => behind,
            None => return false,
        },
    };
    let operand = without_signs(operand);
    truth(operand).is_some_and(|rest| comment(rest).is_some() || (!is_comparison && is_open(operand)))
}

/// Whether a quote is not the closing one of a pair: `"cats" or "do` is a search.
fn opens(at: At<'_>) -> bool {
    let is_same = |letter: &char| at.found.starts_with(*letter);
    at.before.chars().rev().take(64).filter(is_same).count().is_multiple_of(2)
}

/// Whether a comparison begins within the next words.
fn comparison(text: &str) -> bool {
    let text = near(text, 48);
    let sign = |(at, _): (usize, &str)| {
        // What is compared is one name, number, text or call, not a sentence; inside a text nothing is compared.
        text.get(..at).is_some_and(|left| {
            let is_text =
                |quote: &char| left.chars().filter(|letter| letter == quote).count().is_multiple_of(2);
            !left.trim().is_empty()
                && left.trim().split(' ').count() <= 2
                && ['\'', '"', '`'].iter().all(is_text)
        })
    };
    ["=", "<", ">", " like ", " in (", " is null", " is not null", " between ", " regexp ", " rlike "]
        .iter()
        .any(|operator| text.match_indices(operator).next().is_some_and(sign))
}

/// A quote, then a comment to the end: `admin'-- -`, `x') #`.
fn quote_comment(at: At<'_>) -> bool {
    !at.before.is_empty()
        && comment(at.after)
            .is_some_and(|comment| comment.chars().all(|letter| matches!(letter, ' ' | '+' | '-')))
}

/// The beginning of a statement: `drop table x`, `insert into x`, `update x set`, `exec xp_…`.
fn statement((verb, rest): (&str, &str)) -> bool {
    let (next, behind) = first_word(rest);
    match verb {
        "drop" | "alter" | "create" => {
            matches!(
                next,
                "table" | "database" | "schema" | "view" | "user" | "function" | "trigger" | "index"
            ) && !first_word(behind).0.is_empty()
        }
        "truncate" => next == "table" && !first_word(behind).0.is_empty(),
        "insert" => next == "into" && near(behind, 100).contains(['(', '\'']),
        "delete" => next == "from" && (ends(first_word(behind).1) || near(behind, 60).contains(" where ")),
        "update" => first_word(behind).0 == "set" && near(behind, 80).contains('='),
        "exec" | "execute" => {
            next.starts_with("xp_") || next.starts_with("sp_") || rest.trim_start().starts_with(['(', '@'])
        }
        "declare" => rest.trim_start().starts_with('@'),
        "waitfor" => next == "delay",
        "shutdown" => ends(rest),
        "select" => {
            let rest = near(rest, 100);
            rest.contains(" from ") && rest.contains(['*', '(', ',', '\'', '=']) || rest.contains("sleep(")
        }
        _ => false,
    }
}

/// The same with nothing that ends the statement before it.
fn bare_statement(at: At<'_>) -> bool {
    word(at) && statement((at.found, at.after))
}

/// `(select` with what only SQL has behind it.
fn subselect(at: At<'_>) -> bool {
    let (verb, rest) = first_word(at.after);
    if verb != "select" {
        return false;
    }
    let rest = near(rest, 120);
    let is_query = rest.contains("from") && rest.contains(['*', '(', '\'', '=', '@', '|']);
    let is_constant = rest.trim_start().starts_with(|first: char| first.is_ascii_digit() || first == '@');
    is_query || is_constant || rest.contains("sleep(")
}

/// A function or command that only an attack calls from outside, with an argument that fits.
fn function(at: At<'_>) -> bool {
    if at.after.starts_with(" delay") {
        return begins_word(at) && near(at.after, 20).contains(['\'', ':']);
    }
    if at.after.starts_with('.') {
        // `dbms_pipe.receive_message(…)`, `utl_http.request(…)`.
        return begins_word(at) && near(at.after, 40).contains('(');
    }
    let Some(argument) = at.after.trim_start().strip_prefix('(') else { return false };
    let argument = argument.trim_start();
    let is_no_word =
        ["extractvalue", "updatexml", "pg_sleep", "load_file", "xp_cmdshell"].contains(&at.found);
    if is_no_word {
        return begins_word(at) && !argument.is_empty() && !argument.starts_with(')');
    }
    let end =
        argument.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(argument.len());
    let behind = argument.get(end..).unwrap_or_default();
    call(at)
        && (end > 0 && behind.trim_start().starts_with([')', ',', '*'])
            || argument.starts_with(['\'', '(', '"', '@'])
            || argument.starts_with("0x"))
}

fn quoted_next(at: At<'_>) -> bool {
    begins_word(at) && at.after.trim_start().starts_with(['\'', '"', '0'])
}
