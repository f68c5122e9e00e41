//! The decision corpus as people write it: cases, tokens and rules as YAML, made into what the hosts take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use meridian_corpus::case::{Case, Input};
use meridian_engine::ruleset::Target;
use meridian_wire::authored::{self, File};
use serde::Deserialize;
use serde_json::{Value, json};

use token::TokenSpec;

pub mod expect;
pub mod native;
mod token;

/// One case, ready for the hosts.
pub struct Prepared {
    /// File and position in it, `auth.yaml#3`.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// What the hosts take, as JSON.
    pub input: Vec<u8>,
    /// What has to come of each request.
    pub expect: Vec<Value>,
}

/// Every case of the corpus, in the order of files.
pub fn prepare() -> Result<Vec<Prepared>> {
    let folder = root().join("cases");
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    let tokens: BTreeMap<String, TokenSpec> = read(&root().join("tokens.yaml"))?;
    let tokens = tokens
        .iter()
        .map(|(name, spec)| Ok((name.clone(), spec.mint(name)?)))
        .collect::<Result<BTreeMap<String, String>>>()?;
    let mut rules = BTreeMap::new();
    let mut prepared = Vec::new();
    for path in names {
        let file = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let cases: Vec<Value> = read(&path)?;
        for (index, case) in cases.into_iter().enumerate() {
            let name = format!("{file}#{}", index + 1);
            prepared.push(one(name.clone(), case, &tokens, &mut rules).with_context(|| name)?);
        }
    }
    Ok(prepared)
}

fn one(
    name: String,
    case: Value,
    tokens: &BTreeMap<String, String>,
    rules: &mut BTreeMap<String, Bundles>,
) -> Result<Prepared> {
    let mut text = case.to_string();
    for (token, minted) in tokens {
        text = text.replace(&format!("{{{{{token}}}}}"), minted);
    }
    ensure!(!text.contains("{{"), "a token that tokens.yaml does not have: {text}");
    let mut case: Case = serde_json::from_str(&text)?;
    for region in ["us", "eu", "ap", "sa"] {
        let reaction = serde_json::from_value(json!([{ "status": 200, "body": region }]))?;
        case.origins.entry(format!("http://{region}.origin.test")).or_insert(reaction);
    }
    let expect = case.requests.iter().map(|request| request.expect.clone()).collect();
    if !rules.contains_key(&case.rules) {
        rules.insert(case.rules.clone(), Bundles::compile(&root().join("rules").join(&case.rules))?);
    }
    let bundles = rules.get(&case.rules).context("compiled just now")?;
    let about = case.about.clone();
    let input = Input { platform: bundles.platform.clone(), tenants: bundles.tenants.clone(), case };
    Ok(Prepared { name, about, input: serde_json::to_vec(&input)?, expect })
}

/// Bundles of one folder of rules: `platform/` and a folder a tenant.
struct Bundles {
    platform: String,
    tenants: BTreeMap<String, String>,
}

impl Bundles {
    fn compile(folder: &Path) -> Result<Self> {
        let mut bundles =
            Self { platform: bundle(&Target::Platform, &folder.join("platform"))?, tenants: BTreeMap::new() };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let slug = path.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
            if slug != "platform" {
                bundles.tenants.insert(slug.clone(), bundle(&Target::Tenant(slug), &path)?);
            }
        }
        Ok(bundles)
    }
}

fn bundle(target: &Target, folder: &Path) -> Result<String> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let files = paths
        .iter()
        .map(|path| {
            let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            Ok(File::of(name, std::fs::read(path)?)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let compiled = authored::compile(target, &files, None).map_err(|invalid| {
        let lines: Vec<String> = invalid.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}:\n{}", folder.display(), lines.join("\n"))
    })?;
    Ok(String::from_utf8(compiled.bytes)?)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}
