import ArgumentParser
import Foundation
import Hummingbird
import HummingbirdCore
import HummingbirdTLS
import Logging
import NIOSSL
import ServiceLifecycle
import Shared

struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Serves the drive until it is told to stop (SIGTERM, SIGINT).")

    @Option(help: "Address and port to listen on.") var listen = "127.0.0.1:8420"
    @Option(help: "PEM file with the certificate chain, for HTTPS.") var tlsCertificate: String?
    @Option(help: "PEM file with the certificate's private key.") var tlsKey: String?
    @Option(help: ArgumentHelp(
        "How long a connection is kept on which nothing comes, in seconds.",
        discussion: """
            Requests that are being answered and WebSockets are not cut off. The default is longer than the mount keeps a connection to use it \
            again: two minutes (curl, CURLOPT_MAXAGE_CONN).
            """))
    var idleTimeout: Int64 = 180
    @Option(help: "trace, debug, info, notice, warning, error or critical.") var logLevel = "info"
    @OptionGroup var folder: DataFolder

    func run() async throws {
        guard let colon = listen.lastIndex(of: ":"), let port = Int(listen[listen.index(after: colon)...]) else {
            throw ValidationError("--listen wants ADDRESS:PORT, such as 127.0.0.1:8420.")
        }
        guard let level = Logger.Level(rawValue: logLevel) else { throw ValidationError("\(logLevel) is no log level.") }
        guard idleTimeout > 0 else { throw ValidationError("--idle-timeout wants seconds, at least 1.") }
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var logger = Logger(label: "boxfs-server")
        logger.logLevel = level
        let lock = try folder.lock()
        defer { close(lock) }
        let hub = ChangeHub()
        let drive = try folder.open { hub.committed($0, $1) }
        let host = listen[..<colon].trimmingCharacters(in: CharacterSet(charactersIn: "[]"))
        let application = Application(
            router: API(drive: drive, hub: hub, limiter: RateLimiter()).router(), server: try server(NotificationFeed(drive: drive, hub: hub)),
            configuration: .init(address: .hostname(host, port: port), serverName: "boxfs-server"), logger: logger)
        var configuration = ServiceGroupConfiguration(
            services: [.init(service: application), .init(service: Upkeep(drive: drive, hub: hub, logger: logger))],
            gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        configuration.maximumGracefulShutdownDuration = Self.patience
        try await ServiceGroup(configuration: configuration).run()
    }

    /// How long requests under way are waited for at the end. A client that fell silent in the middle of one would hold up the end for ever; an
    /// upload that is cut off goes on with the next server.
    private static let patience = Duration.seconds(5)

    private func server(_ feed: NotificationFeed) throws -> HTTPServerBuilder {
        let http = HTTPServerBuilder.http1(configuration: .init(additionalChannelHandlers: [NotificationUpgrade(feed)], idleTimeout: .seconds(idleTimeout)))
        guard let tlsCertificate, let tlsKey else {
            guard tlsCertificate == nil, tlsKey == nil else { throw ValidationError("--tls-certificate and --tls-key go together.") }
            return http
        }
        let chain = try NIOSSLCertificate.fromPEMFile(tlsCertificate).map { NIOSSLCertificateSource.certificate($0) }
        let key = try NIOSSLPrivateKey(file: tlsKey, format: .pem)
        return try .tls(http, tlsConfiguration: .makeServerConfiguration(certificateChain: chain, privateKey: .privateKey(key)))
    }
}

/// What the server does by itself: thins histories and collects garbage each hour, and lets long polls go when it ends.
struct Upkeep: Service {
    let drive: Drive
    let hub: ChangeHub
    let logger: Logger

    func run() async throws {
        await withGracefulShutdownHandler {
            await cancelWhenGracefulShutdown {
                var clock = ClockWatch(drive.now(), drive.uptime())
                while !Task.isCancelled {
                    try? await Task.sleep(for: .seconds(3600))
                    guard !Task.isCancelled else { return }
                    guard clock.trusts(drive.now(), drive.uptime()) else {
                        logger.warning("the clock was set: for a day nothing is dropped for its age")
                        continue
                    }
                    do {
                        let thinned = try await drive.thin()
                        logger.info("history thinned", metadata: ["versions": "\(thinned.versions)", "purged": "\(thinned.purged)"])
                        let report = try await drive.collectGarbage(graceSeconds: 3600, pauseSeconds: 30)
                        logger.info("garbage collected", metadata: ["chunks": "\(report.chunks)", "bytes": "\(report.bytes)"])
                    } catch { logger.error("garbage collection failed", metadata: ["error": "\(error)"]) }
                }
            }
        } onGracefulShutdown: {
            hub.close()
        }
    }
}
