import Dispatch
import Shared
import Synchronization

/// The few calls that commands make to a server, as blocking functions whose errors are sentences.
struct ServerAccess {
    let server: String
    private let remote: Remote

    init(server: String, token: String?) {
        self.server = server
        remote = Remote(ConnectionSettings(server: server, token: token))
    }

    init(_ profile: Profile) { self.init(server: profile.server, token: profile.token) }

    func serverInformation() throws(CommandFailure) -> ServerInformation {
        try ask { () async throws(RemoteError) in try await remote.serverInformation() }
    }

    func login(_ request: LoginRequest) throws(CommandFailure) -> LoginAnswer {
        try ask { () async throws(RemoteError) in try await remote.login(request) }
    }

    func account() throws(CommandFailure) -> AccountInformation {
        try ask { () async throws(RemoteError) in try await remote.account() }
    }

    func logout() throws(CommandFailure) {
        try ask { () async throws(RemoteError) in try await remote.logout() }
    }

    /// Calls that have no function of their own here.
    func ask<Answer: Sendable>(_ call: @escaping @Sendable (Remote) async throws(RemoteError) -> Answer) throws(CommandFailure) -> Answer {
        let remote = remote
        return try ask { () async throws(RemoteError) in try await call(remote) }
    }

    func createLink(_ namespace: NamespaceID, _ request: LinkRequest) throws(CommandFailure) -> LinkAnswer {
        try ask { () async throws(RemoteError) in try await remote.createLink(namespace, request) }
    }

    func links() throws(CommandFailure) -> [LinkInformation] { try ask { () async throws(RemoteError) in try await remote.links() } }

    func link(_ name: String) throws(CommandFailure) -> LinkInformation {
        try ask { () async throws(RemoteError) in try await remote.link(name) }
    }

    func shares() throws(CommandFailure) -> [Share] { try ask { () async throws(RemoteError) in try await remote.shares() } }

    func revokeLink(_ name: String) throws(CommandFailure) { try ask { () async throws(RemoteError) in try await remote.revokeLink(name) } }

    func audit(_ namespace: NamespaceID, _ query: [(String, String)]) throws(CommandFailure) -> AuditPage {
        try ask { () async throws(RemoteError) in try await remote.audit(namespace, query) }
    }

    private func ask<Answer: Sendable>(_ call: @escaping @Sendable () async throws(RemoteError) -> Answer) throws(CommandFailure) -> Answer {
        let result: Result<Answer, RemoteError> = waitFor {
            do throws(RemoteError) { return .success(try await call()) } catch { return .failure(error) }
        }
        do throws(RemoteError) { return try result.get() } catch { throw failure(error) }
    }

    private static func sentence(_ text: String) -> String { text.hasSuffix(".") ? text : text + "." }

    private func failure(_ error: RemoteError) -> CommandFailure {
        switch error {
        case .offline(let reason):
            CommandFailure(.unreachable, "No answer from the server: \(reason). Check the address and the network, and that boxfs-server runs there.")
        case .problem(let problem) where problem.code == ProblemCode.unauthorized.rawValue:
            CommandFailure(.notLoggedIn, "The server does not accept this login (\(problem.detail ?? problem.title)).")
        case .problem(let problem):
            CommandFailure("The server refuses: \(Self.sentence(problem.detail ?? problem.title))")
        case .invalidAnswer:
            CommandFailure("What answers at \(server) is not a BoxFS server of this version: \(error).")
        case .cancelled:
            CommandFailure("The request was cancelled.")
        }
    }
}

/// Runs asynchronous work to its end on behalf of a thread that may block: a command's main thread, never one of the cooperative pool.
func waitFor<Answer: Sendable>(_ work: @escaping @Sendable () async -> Answer) -> Answer {
    let box = AnswerBox<Answer>()
    Task {
        let answer = await work()
        box.answer.withLock { $0 = answer }
        box.done.signal()
    }
    box.done.wait()
    return box.answer.withLock { $0! }
}

private final class AnswerBox<Answer: Sendable>: Sendable {
    let answer = Mutex<Answer?>(nil)
    let done = DispatchSemaphore(value: 0)
}
