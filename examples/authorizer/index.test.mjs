import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { HOSTILE, NO_NAME, PLAIN, TWO_NAMES } from "./certificates.test-data.mjs";
import { handler, headerSafe, identity } from "./index.mjs";

const http = (pem) => ({ version: "2.0", requestContext: { authentication: pem && { clientCert: { clientCertPem: pem } } } });
const rest = (pem) => ({ type: "REQUEST", methodArn: "arn:m", requestContext: { identity: pem ? { clientCert: { clientCertPem: pem } } : {} } });

test("an HTTP API learns who called", async () => {
  const { isAuthorized, context } = await handler(http(PLAIN));
  const certificate = new X509Certificate(PLAIN);
  assert.equal(isAuthorized, true);
  assert.deepEqual(context, {
    subject: "O=Example,CN=client1",
    commonName: "client1",
    sans: "DNS:client1.example.com, URI:urn:client1",
    fingerprint: certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
    serialNumber: certificate.serialNumber,
  });
});

test("a REST API gets a policy for the method that was called, and the same context", async () => {
  const answer = await handler(rest(PLAIN));
  assert.deepEqual(answer.policyDocument.Statement, [{ Action: "execute-api:Invoke", Effect: "Allow", Resource: "arn:m" }]);
  assert.deepEqual(answer.context, identity(PLAIN));
});

test("without a certificate, or with what is none, nobody gets through", async () => {
  for (const pem of [undefined, "", "no certificate"]) {
    assert.deepEqual(await handler(http(pem)), { isAuthorized: false });
    const answer = await handler(rest(pem));
    assert.equal(answer.policyDocument.Statement[0].Effect, "Deny");
    assert.equal(answer.context, undefined);
  }
});

test("a hostile subject is neither a further header nor a further attribute", () => {
  const { subject, commonName } = identity(HOSTILE);
  for (const value of [subject, commonName]) assert.match(value, /^[\x20-\x7e]+$/);
  assert.equal(commonName, "admin%0D%0Ax-role: root, O=Bank %C3%BC 100%25");
  assert.match(subject, /root\\, O=Bank/);
});

test("a name that is missing or ambiguous is a dash, which no real name can be", () => {
  assert.equal(identity(NO_NAME).commonName, "-");
  assert.equal(identity(TWO_NAMES).commonName, "-");
  assert.equal(identity(NO_NAME).sans, "-");
  assert.equal(headerSafe("-"), "%2D");
});
