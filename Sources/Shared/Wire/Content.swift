import Foundation

/// A manifest as it travels and as a version keeps it: packed inline, or as the names of its pages.
public struct Content: Codable, Hashable, Sendable {
    /// Bytes of the file; the sum of the chunk lengths.
    public var size: UInt64
    /// Packed references (`Manifest.pack`), base64 in JSON; at most `Manifest.maximumInlineCount` of them.
    public var inline: Data?
    /// Hashes of the pages, in order; present when `inline` is not.
    public var pages: [ChunkHash]?

    public init(size: UInt64, inline: Data?, pages: [ChunkHash]?) {
        self.size = size
        self.inline = inline
        self.pages = pages
    }

    public static let empty = Content(size: 0, inline: Data(), pages: nil)

    /// The form that the rules ask for; the caller sees to it that the pages reach the server.
    public init(_ manifest: Manifest) {
        if manifest.chunks.count <= Manifest.maximumInlineCount {
            self.init(size: manifest.byteCount, inline: Data(Manifest.pack(manifest.chunks)), pages: nil)
        } else {
            self.init(size: manifest.byteCount, inline: nil, pages: manifest.pages.map(\.hash))
        }
    }
}
