import Foundation

/// The field `Content-Digest` of RFC 9530, with SHA-256: `sha-256=:BASE64:`.
///
/// Both sides send it with JSON bodies and check it where it comes: without TLS nothing else notices a byte that was changed on the way.
/// Chunks and manifest pages need none, as their names are their hashes.
public enum ContentDigest {
    /// `User-Agent` of the mount and the command, whose JSON bodies all carry a digest: without one they were damaged on their way, digest and all.
    public static let agent = "boxfs"

    public static let name = "Content-Digest"
    private static let key = "sha-256=:"

    /// The field's value for a body.
    public static func value(of body: UnsafeRawBufferPointer) -> String { "\(key)\(Data(SHA256.hash(body).bytes).base64EncodedString()):" }

    /// False when the field tells another SHA-256 than the body's, nil when it tells none. It is a dictionary of structured fields (RFC 9651):
    /// members with commas between them, whose parameters follow semicolons.
    public static func agrees(_ field: String, with body: UnsafeRawBufferPointer) -> Bool? {
        let members = field.split(separator: ",").map { $0.prefix { $0 != ";" }.trimmingCharacters(in: .whitespaces) }
        guard let told = members.last(where: { $0.hasPrefix(key) }) else { return nil }
        return told == value(of: body)
    }
}
