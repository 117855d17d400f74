import Foundation
import NIOCore
import Shared

/// A file that comes as a stream: cut into chunks, each stored when it is whole; a commit at the end names them. Used by one task.
final class IncomingFile {
    private let drive: Drive
    private let session: Session
    private let namespace: NamespaceID
    private var pending = ByteBuffer()
    private var references: [ChunkReference] = []
    private(set) var byteCount: UInt64 = 0
    /// The session that holds the chunks; nil while nothing was sent.
    private(set) var upload: UploadID?

    init(_ drive: Drive, _ session: Session, _ namespace: NamespaceID) { (self.drive, self.session, self.namespace) = (drive, session, namespace) }

    func append(_ bytes: ByteBuffer) async throws(DriveError) {
        var bytes = bytes
        byteCount += UInt64(bytes.readableBytes)
        while bytes.readableBytes > 0 {
            if pending.readableBytes == Manifest.maximumChunkByteCount { try await storeFull() }
            let count = min(bytes.readableBytes, Manifest.maximumChunkByteCount - pending.readableBytes)
            var part = bytes.readSlice(length: count)!
            pending.writeBuffer(&part)
        }
    }

    /// Sends what is left. - Returns: what a commit that names `upload` may say.
    func finish() async throws(DriveError) -> Content {
        if pending.readableBytes > 0 { try await store(pending) }
        let manifest = Manifest(chunks: references), content = Content(manifest)
        guard content.pages != nil else { return content }
        let pages = manifest.pages
        let answer = try await announce(UploadRequest(chunks: Data(), pages: pages.map(\.hash)))
        for page in pages where answer.neededPages.contains(page.hash) {
            try await drive.storePage(session, answer.upload, page.hash, packed: page.packed)
        }
        return content
    }

    /// Lets go what was sent and no commit will take, also when the sender went away; if that fails, it expires.
    func abandon() {
        guard let upload else { return }
        Task { [drive, session] in try? await drive.abandonUpload(session, upload) }
    }

    /// More comes: the file is longer than one chunk.
    private func storeFull() async throws(DriveError) {
        if references.isEmpty { try await store(pending.readSlice(length: Manifest.headByteCount)!) }
        try await store(pending)
        pending = ByteBuffer()
    }

    private func store(_ chunk: ByteBuffer) async throws(DriveError) {
        let hash = chunk.withUnsafeReadableBytes { SHA256.hash($0) }
        let reference = ChunkReference(hash: hash, length: UInt32(chunk.readableBytes))
        references.append(reference)
        let answer = try await announce(UploadRequest(chunks: Data(Manifest.pack([reference])), pages: []))
        if answer.neededChunks.contains(hash) { try await drive.storeChunks(session, answer.upload, [(reference, chunk)]) }
    }

    private func announce(_ request: UploadRequest) async throws(DriveError) -> UploadAnswer {
        if let upload { return try await drive.extendUpload(session, upload, request) }
        let answer = try await drive.startUpload(session, namespace, request)
        upload = answer.upload
        return answer
    }
}
