import Shared

extension Remote {
    /// - Parameter query: from `after ?`, ready for an address.
    func audit(_ namespace: NamespaceID, _ query: [(String, String)]) async throws(RemoteError) -> AuditPage {
        try await get("/v1/namespaces/\(namespace)/audit?" + query.map { "\($0.0)=\(Self.escaped($0.1))" }.joined(separator: "&"))
    }
}
