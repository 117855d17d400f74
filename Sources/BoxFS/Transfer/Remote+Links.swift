import Shared

// Links (docs/openapi.yaml).
extension Remote {
    func createLink(_ namespace: NamespaceID, _ request: LinkRequest) async throws(RemoteError) -> LinkAnswer {
        try await post("/v1/namespaces/\(namespace)/links", request)
    }

    func links() async throws(RemoteError) -> [LinkInformation] { try await get("/v1/links") }

    /// - Parameter name: the link's identifier or its token.
    func link(_ name: String) async throws(RemoteError) -> LinkInformation { try await get("/v1/links/" + Self.escaped(name)) }

    func revokeLink(_ name: String) async throws(RemoteError) { try await send("DELETE", "/v1/links/" + Self.escaped(name)) }
}
