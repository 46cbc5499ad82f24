// A Lambda authorizer for API Gateway behind mutual TLS: tells the back end who called, from the client's certificate.
// API Gateway has checked the certificate against the truststore before it asks; this function only reads it.
import { X509Certificate } from "node:crypto";

// Stands for a field the certificate does not have (or has more than once): an empty value might leave what the caller
// sent in the header's place. A field that really is "-" comes out as "%2D".
const ABSENT = "-";

/** A value that is safe in a header: printable ASCII as it is, everything else and "%" percent-encoded as UTF-8. */
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

/** What the back end is told of a certificate in PEM. Throws if it is none. */
export function identity(pem) {
  const certificate = new X509Certificate(pem);
  return {
    // Node escapes separators inside a value (RFC 2253), so that no value can pass for a further attribute.
    subject: headerSafe((certificate.subject ?? "").split("\n").join(",")),
    // Several common names are an array here: which one is meant is nobody's to guess.
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
