import Foundation
import NIOCore
import Shared

/// What a subscriber is told: the pages that the long poll would answer, one after the other.
struct NotificationFeed: Sendable {
    /// Rows in a page: a message stays below the 1 MiB that clients take by default.
    private static let pageRows = 100
    /// Between looks at the caller's rights while there is nothing to tell.
    private static let rightsSeconds: Int64 = 5
    let drive: Drive
    let hub: ChangeHub

    struct Admission: Sendable {
        let token: String
        let namespace: NamespaceID
        let cursor: Int64
        let protocolName: String?
        /// For who follows all that may be read; nil for who follows one namespace.
        var cursors: [NamespaceID: Int64]?
    }

    /// - Throws: `.unauthorized`, `.notFound` for a namespace that the caller may not read, `.badRequest`.
    func admit(_ subscription: Subscription, address: String) async throws -> Admission {
        guard let token = subscription.token else { throw DriveError.unauthorized }
        var session = try await drive.authenticate(token)
        session.address = address
        var namespace = session.home
        if let text = subscription.namespace {
            guard let id = NamespaceID(text) else { throw DriveError.notFound("There is no such namespace.") }
            namespace = id
        }
        var cursor = try await drive.namespaceInformation(session, namespace).sequence
        if let text = subscription.after {
            guard let number = Int64(text), number >= 0 else { throw DriveError.badRequest("after must be a number.") }
            cursor = number
        }
        try await drive.auditRead(session, namespace)
        return Admission(
            token: token, namespace: namespace, cursor: cursor, protocolName: subscription.protocolName,
            cursors: subscription.followsAll ? try Self.cursors(subscription.cursors ?? "") : nil)
    }

    private static func cursors(_ text: String) throws -> [NamespaceID: Int64] {
        var cursors: [NamespaceID: Int64] = [:]
        for part in text.split(separator: ",") {
            let words = part.split(separator: ":", maxSplits: 1)
            guard words.count == 2, let id = NamespaceID(String(words[0])), let number = Int64(words[1]), number >= 0 else {
                throw DriveError.badRequest("cursors is a list of NAMESPACE:NUMBER.")
            }
            cursors[id] = number
        }
        return cursors
    }

    /// Gives each page to `send`, which returns when the network has taken it: a slow subscriber is told late, and nothing piles up. Rights
    /// are looked at again before each page.
    ///
    /// - Returns: when the server ends, or the task is cancelled.
    /// - Throws: what ends the subscription.
    func run(_ admission: Admission, _ send: (ByteBuffer) async throws -> Void) async throws {
        if let cursors = admission.cursors { return try await follow(cursors, admission.token, send) }
        var cursor = admission.cursor
        while !Task.isCancelled, !hub.isClosed {
            let session = try await drive.authenticate(admission.token)
            let page = try await drive.changes(session, admission.namespace, after: cursor, limit: Self.pageRows)
            if !page.entries.isEmpty || !page.nodes.isEmpty || page.cursor < cursor {
                try await send(ByteBuffer(bytes: try JSONEncoder().encode(page)))
            }
            // A cursor from the future was told once; the subscriber has to decide what it means.
            cursor = page.cursor
            if !page.more { await hub.wait(admission.namespace, beyond: cursor, seconds: Self.rightsSeconds) }
        }
    }

    /// The same for all namespaces that the caller may read, each page with its namespace. One that is new to the caller is followed from
    /// where the junction to it was told.
    private func follow(_ start: [NamespaceID: Int64], _ token: String, _ send: (ByteBuffer) async throws -> Void) async throws {
        var cursors = start
        while !Task.isCancelled, !hub.isClosed {
            let session = try await drive.authenticate(token)
            let readable = try await drive.accountInformation(session).namespaces
            cursors = cursors.filter { cursor in readable.contains { $0.id == cursor.key } }
            for namespace in readable where cursors[namespace.id] == nil { cursors[namespace.id] = namespace.sequence }
            var hasMore = false
            for namespace in readable {
                // The right may have gone since.
                guard let page = try await page(session, namespace.id, cursors[namespace.id]!) else { continue }
                for shared in page.nodes.compactMap(\.shared) where cursors[shared.namespace] == nil { cursors[shared.namespace] = shared.sequence }
                if !page.entries.isEmpty || !page.nodes.isEmpty || page.cursor < cursors[namespace.id]! {
                    try await send(ByteBuffer(bytes: try JSONEncoder().encode(FollowAnswer.Page(namespace: namespace.id, page: page))))
                }
                cursors[namespace.id] = page.cursor
                hasMore = hasMore || page.more
            }
            if !hasMore { await hub.wait(cursors.map { ($0.key, $0.value) }, seconds: Self.rightsSeconds) }
        }
    }

    private func page(_ session: Session, _ namespace: NamespaceID, _ cursor: Int64) async throws(DriveError) -> ChangePage? {
        do throws(DriveError) { return try await drive.changes(session, namespace, after: cursor, limit: Self.pageRows) } catch {
            guard case .notFound = error else { throw error }
            return nil
        }
    }
}
