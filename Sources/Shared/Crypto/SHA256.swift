import COpenSSL

/// SHA-256 by OpenSSL, which uses the processor's SHA instructions.
///
/// Not thread-safe: one instance hashes one message.
public struct SHA256: ~Copyable {
    private let context: OpaquePointer

    public init() {
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            preconditionFailure("OpenSSL has no SHA-256")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        precondition(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1)
    }

    /// The hash of all that was given; the instance cannot be used again.
    public consuming func finish() -> ChunkHash {
        let bytes = [UInt8](unsafeUninitializedCapacity: ChunkHash.byteCount) { buffer, count in
            precondition(EVP_DigestFinal_ex(context, buffer.baseAddress, nil) == 1)
            count = ChunkHash.byteCount
        }
        return ChunkHash(bytes: bytes)!
    }

    public static func hash(_ bytes: UnsafeRawBufferPointer) -> ChunkHash {
        var hasher = SHA256()
        hasher.update(bytes)
        return hasher.finish()
    }

    public static func hash(_ bytes: [UInt8]) -> ChunkHash { bytes.withUnsafeBytes { hash($0) } }
}
