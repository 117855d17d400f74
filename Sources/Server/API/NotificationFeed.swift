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
        return Admission(token: token, namespace: namespace, cursor: cursor, protocolName: subscription.protocolName)
    }

    /// Gives each page to `send`, which returns when the network has taken it: a slow subscriber is told late, and nothing piles up. Rights
    /// are looked at again before each page.
    ///
    /// - Returns: when the server ends, or the task is cancelled.
    /// - Throws: what ends the subscription.
    func run(_ admission: Admission, _ send: (ByteBuffer) async throws -> Void) async throws {
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
}
