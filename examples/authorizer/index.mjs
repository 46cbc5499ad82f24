// A Lambda authorizer for API Gateway behind mutual TLS: passes the caller's identity from the client
// certificate to the back end. API Gateway has checked the certificate against the truststore before; this
// function only reads it.
import { X509Certificate } from "node:crypto";

// Value of a field that the certificate does not have (or has more than once): with an empty value the
// caller's own header might stay in place. A field that is literally "-" becomes "%2D".
const ABSENT = "-";

/** Returns a value that is safe in a header: printable ASCII unchanged, "%" and other bytes percent-encoded. */
export function headerSafe(value) {
  if (typeof value !== "string" || value === "") return ABSENT;
  if (value === ABSENT) return "%2D";
  const encoded = Buffer.from(value, "utf8");
  return Array.from(encoded, (byte) => {
    const edge = byte === 0x20 && (encoded[0] === byte || encoded[encoded.length - 1] === byte);
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25 && !edge;
    return plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");
}

/** Returns the fields of a PEM certificate for the back end. Throws if the text is no certificate. */
export function identity(pem) {
  const certificate = new X509Certificate(pem);
  return {
    // Node escapes separators inside a value (RFC 2253), so that no value can pass for a further attribute.
    subject: headerSafe((certificate.subject ?? "").split("\n").join(",")),
    // Several common names are an array here: the function does not guess which one is meant.
    commonName: headerSafe(certificate.toLegacyObject().subject?.CN),
    // Node quotes a name that holds a separator.
    sans: headerSafe(certificate.subjectAltName),
    fingerprint: headerSafe(certificate.fingerprint256.replaceAll(":", "").toLowerCase()),
    serialNumber: headerSafe(certificate.serialNumber),
  };
}

function read(pem) {
  try {
    return pem ? identity(pem) : undefined;
  } catch {
    return undefined;
  }
}

export async function handler(event) {
  if (event.version === "2.0") {
    const context = read(event.requestContext?.authentication?.clientCert?.clientCertPem);
    return context ? { isAuthorized: true, context } : { isAuthorized: false };
  }
  const context = read(event.requestContext?.identity?.clientCert?.clientCertPem);
  return {
    principalId: context?.fingerprint ?? "anonymous",
    policyDocument: {
      Version: "2012-10-17",
      Statement: [{ Action: "execute-api:Invoke", Effect: context ? "Allow" : "Deny", Resource: event.methodArn }],
    },
    ...(context && { context }),
  };
}
