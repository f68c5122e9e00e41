//! `meridian token …`: tokens of end users, signed with the development issuer's key. Not for production, where the
//! tenant's own identity provider signs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jwt_simple::algorithms::{Ed25519KeyPair, EdDSAKeyPairLike as _};
use jwt_simple::claims::Claims;
use jwt_simple::prelude::Duration;
use meridian_wire::document::Span;
use meridian_wire::keyring::SigningKey;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print;
use crate::profile::beside_the_stack;

#[derive(Subcommand)]
pub enum Token {
    /// Sign a token of an end user with a development key.
    Mint(Mint),
}

#[derive(Args)]
pub struct Mint {
    /// Tenant whose development issuer signs.
    #[arg(long, value_name = "SLUG", default_value = "acme")]
    tenant: String,
    /// Subject.
    #[arg(long, value_name = "SUBJECT")]
    sub: String,
    /// Scopes, separated by spaces or commas, or given more than once.
    #[arg(long, value_name = "SCOPES")]
    scope: Vec<String>,
    /// How long it is valid.
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    ttl: Span,
    /// `iss`; the demo issuer of the tenant where it is not given.
    #[arg(long, value_name = "URL")]
    iss: Option<String>,
    /// `aud`; the demo API of the tenant where it is not given.
    #[arg(long, value_name = "URL")]
    aud: Option<String>,
    /// A claim besides, as NAME=VALUE, where the value is JSON or else a text.
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
    /// File with the key, `KID:BASE64URL`; the local stack's where it is not given.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Token {
    pub fn run(self, json: bool) -> Result<(), Failure> {
        let Self::Mint(mint) = self;
        let token = mint.sign()?;
        if json {
            print::json(&json!({ "token": token }));
        } else {
            print::line(&token);
        }
        Ok(())
    }
}

impl Mint {
    fn sign(&self) -> Result<String, Failure> {
        let key = self.key()?;
        let mut custom = self.claims()?;
        let scopes: Vec<&str> =
            self.scope.iter().flat_map(|text| text.split([' ', ','])).filter(|it| !it.is_empty()).collect();
        custom.insert("scope".to_owned(), json!(scopes.join(" ")));
        let issuer = self.iss.clone().unwrap_or_else(|| format!("https://issuer.{}.example", self.tenant));
        let audience = self.aud.clone().unwrap_or_else(|| format!("https://api.{}.example", self.tenant));
        let life = Duration::from_millis(self.ttl.ms);
        let mut claims = Claims::with_custom_claims(custom, life)
            .with_issuer(issuer)
            .with_audience(audience)
            .with_subject(&self.sub);
        // Not before the moment of signing is what `iat` says already; clocks differ.
        claims.invalid_before = None;
        let failed = |_| Failure::Usage("the key cannot sign".to_owned());
        let pair = Ed25519KeyPair::from_bytes(&key.to_bytes()).map_err(failed)?.with_key_id(key.kid());
        pair.sign(claims).map_err(failed)
    }

    fn key(&self) -> Result<SigningKey, Failure> {
        let name = format!("keys/issuer-{}", self.tenant);
        let found = self
            .key
            .clone()
            .or_else(|| beside_the_stack(&name))
            .or_else(|| beside_the_stack(&format!("{name}.key")));
        let path = found.ok_or_else(|| {
            Failure::Usage(format!(
                "no .meridian/{name} here or in a folder around: start the local stack, or give --key"
            ))
        })?;
        let text = fs::read_to_string(&path).map_err(Failure::file(&path))?;
        SigningKey::parse(text.trim()).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    }

    fn claims(&self) -> Result<BTreeMap<String, Value>, Failure> {
        let reserved = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope"];
        let claim = |text: &String| {
            let (name, value) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty() && !reserved.contains(name))
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "--claim {text}: expected NAME=VALUE, with another name than {}",
                        reserved.join(", ")
                    ))
                })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        };
        self.claim.iter().map(claim).collect()
    }
}
