-- Bearer tokens in nginx: verified by OpenSSL, and the verdict remembered in each worker until the token expires.

local base64 = require "ngx.base64"
local cjson = require "cjson.safe"
local digest = require "openssl.digest"
local hmac = require "openssl.hmac"
local lru = require "resty.lrucache"
local pkey = require "openssl.pkey"

local Token = {}
Token.__index = Token

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

-- A number of 32 bytes as DER has it: without leading zeros, but with one where it would look negative.
local function integer(bytes)
  bytes = bytes:gsub("^%z+", "")
  if bytes == "" or bytes:byte(1) >= 128 then bytes = "\0" .. bytes end
  return "\2" .. string.char(#bytes) .. bytes
end

-- Compares in a time that does not depend on where the texts differ.
local function equal(a, b)
  if #a ~= #b then return false end
  local difference = 0
  for at = 1, #a do difference = bit.bor(difference, bit.bxor(a:byte(at), b:byte(at))) end
  return difference == 0
end

-- config.verdicts: how many a worker remembers.
function Token.new(config)
  local verdicts = assert(lru.new(config.verdicts))
  local self = { issuer = config.issuer, audience = config.audience, verdicts = verdicts }
  local key = pkey.new(read(config.es256_file))
  self.algorithms = {
    HS256 = function(text, signature) return equal(hmac.new(config.hs256, "sha256"):final(text), signature) end,
    ES256 = function(text, signature)
      if #signature ~= 64 then return false end
      local numbers = integer(signature:sub(1, 32)) .. integer(signature:sub(33))
      return key:verify("\48" .. string.char(#numbers) .. numbers, digest.new("sha256"):update(text))
    end,
  }
  return setmetatable(self, Token)
end

local function json(part)
  local value = cjson.decode(base64.decode_base64url(part) or "")
  return type(value) == "table" and value or {}
end

-- What a token says, or nothing if it is not valid now.
function Token:verify(text)
  local head, claims, signature = text:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if not head then return nil end
  local verify = self.algorithms[json(head).alg]
  local said = json(claims)
  if not verify or said.iss ~= self.issuer or said.aud ~= self.audience then return nil end
  if type(said.exp) ~= "number" or said.exp <= ngx.time() or type(said.sub) ~= "string" then return nil end
  if not verify(head .. "." .. claims, base64.decode_base64url(signature) or "") then return nil end
  local scopes = {}
  for scope in tostring(said.scope or ""):gmatch("%S+") do scopes[scope] = true end
  return { subject = said.sub, scopes = scopes, expires = said.exp }
end

-- Ends the request unless it carries a valid token, with this scope if one is named; else sets $subject.
function Token:check(scope)
  local text = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
  if not text then return ngx.exit(401) end
  local verdict = self.verdicts:get(text)
  if not verdict then
    verdict = self:verify(text)
    if not verdict then return ngx.exit(401) end
    self.verdicts:set(text, verdict, verdict.expires - ngx.time())
  end
  if scope and not verdict.scopes[scope] then return ngx.exit(403) end
  ngx.var.subject = verdict.subject
end

return Token
