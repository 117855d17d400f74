import Foundation
import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOWebSocket
import Shared

/// Turns a connection that asks for `GET /v1/notifications` with `Upgrade: websocket` (RFC 6455) into a WebSocket, and lets all else pass.
///
/// Stands between Hummingbird's HTTP codec and its handler. From the request's head on nothing is passed to Hummingbird any more, so
/// that it sees an idle connection; when the caller was let in, the HTTP handlers leave and WebSocket's take their place. Who is not let in
/// gets a problem document and the end of the connection.
final class NotificationUpgrade: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    static let path = "/v1/notifications"
    private let feed: NotificationFeed
    private enum State { case http, asking(HTTPRequest), taken }
    private var state = State.http
    /// Requests that Hummingbird has not answered: an upgrade behind one of them on the same connection has to wait, so it is refused there.
    private var open = 0

    init(_ feed: NotificationFeed) { self.feed = feed }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        switch (state, part) {
        case (.http, .head(let request)):
            if open == 0, Self.isUpgrade(request) { return state = .asking(request) }
            open += 1
            context.fireChannelRead(data)
        case (.http, _): context.fireChannelRead(data)
        case (.asking(let request), .end):
            state = .taken
            begin(request, context)
        case (.asking, _), (.taken, _): break
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { open -= 1 }
        context.write(data, promise: promise)
    }

    private static func isUpgrade(_ request: HTTPRequest) -> Bool {
        request.method == .get && request.path?.prefix(while: { $0 != "?" }) ?? "" == path && request.headerFields[.upgrade]?.lowercased() == "websocket"
    }

    private func begin(_ request: HTTPRequest, _ context: ChannelHandlerContext) {
        var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: Self.path)
        for field in request.headerFields { head.headers.add(name: field.name.rawName, value: field.value) }
        let subscription = Subscription(request), feed = feed, address = context.channel.remoteAddress?.ipAddress ?? "unknown"
        let channel = context.channel
        // Checks key and version, and answers the key (RFC 6455, section 4.2.2).
        let handshake = NIOWebSocketServerUpgrader(
            shouldUpgrade: { channel, _ in channel.eventLoop.makeSucceededFuture([:]) },
            upgradePipelineHandler: { channel, _ in channel.eventLoop.makeSucceededVoidFuture() }
        ).buildUpgradeResponse(channel: channel, upgradeRequest: head, initialResponseHeaders: [:])
        let admitted = channel.eventLoop.makePromise(of: NotificationFeed.Admission.self)
        admitted.completeWithTask { try await feed.admit(subscription, address: address) }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        handshake.flatMapErrorThrowing { _ in throw DriveError.badRequest("This is no WebSocket handshake of version 13.") }
            .and(admitted.futureResult).whenComplete { result in
                let (upgrade, context) = bound.value
                switch result {
                case .success((let headers, let admission)): upgrade.accept(headers, admission, context)
                case .failure(let error): upgrade.refuse(Problem(error), context)
                }
            }
    }

    private func refuse(_ problem: Problem, _ context: ChannelHandlerContext) {
        let body = (try? JSONEncoder().encode(problem)) ?? Data()
        var response = HTTPResponse(status: .init(code: problem.status))
        response.headerFields = [.contentType: "application/problem+json", .contentLength: String(body.count), .connection: "close"]
        if problem.status == 401 { response.headerFields[.wwwAuthenticate] = "Bearer" }
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        context.write(wrapOutboundOut(.body(ByteBuffer(bytes: body))), promise: nil)
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in channel.close(promise: nil) }
    }

    private func accept(_ headers: HTTPHeaders, _ admission: NotificationFeed.Admission, _ context: ChannelHandlerContext) {
        var response = HTTPResponse(status: .switchingProtocols)
        for (name, value) in headers { if let name = HTTPField.Name(name) { response.headerFields[name] = value } }
        if let chosen = admission.protocolName { response.headerFields[HTTPField.Name("Sec-WebSocket-Protocol")!] = chosen }
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        let pipeline = context.pipeline.syncOperations
        do {
            // What was needed for HTTP goes; Hummingbird's own end of the pipeline stays, hears nothing more, and ends with the channel.
            var leaving: [any RemovableChannelHandler] = [
                try pipeline.handler(type: HTTP1ToHTTPServerCodec.self), try pipeline.handler(type: HTTPResponseEncoder.self),
                try pipeline.handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self),
            ]
            if let state = try? pipeline.handler(type: HTTPConnectionStateHandler.self) { leaving.append(state) }
            let session = NotificationSession(feed, admission)
            let gone = leaving.map { pipeline.removeHandler($0) }
            let bound = NIOLoopBound((self, context, session), eventLoop: context.eventLoop)
            EventLoopFuture.andAllSucceed(gone, on: context.eventLoop).whenComplete { result in
                let (upgrade, context, session) = bound.value
                do {
                    try result.get()
                    try context.pipeline.syncOperations.addHandlers(
                        [WebSocketFrameEncoder(), ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: 4096)), WebSocketProtocolErrorHandler(), session],
                        position: .before(upgrade))
                } catch { context.close(promise: nil) }
            }
        } catch { context.close(promise: nil) }
    }
}

/// What the request says: who asks, and for what.
struct Subscription: Sendable {
    /// From `Authorization: Bearer`, or, as browsers can set no header, from a subprotocol `boxfs.token.TOKEN` beside `boxfs.v1`.
    let token: String?
    let protocolName: String?
    let namespace: String?
    let after: String?
    /// Not one namespace, but all that the caller may read: `cursors` says from where on, as `NAMESPACE:NUMBER,…`.
    let followsAll: Bool
    let cursors: String?

    init(_ request: HTTPRequest) {
        let offered = (request.headerFields[HTTPField.Name("Sec-WebSocket-Protocol")!] ?? "").split(separator: ",").map { $0.filter { $0 != " " } }
        protocolName = offered.contains("boxfs.v1") ? "boxfs.v1" : nil
        if let header = request.headerFields[.authorization], header.lowercased().hasPrefix("bearer ") {
            token = String(header.dropFirst(7))
        } else {
            token = offered.first { $0.hasPrefix("boxfs.token.") }.map { String($0.dropFirst("boxfs.token.".count)) }
        }
        let query = request.path.flatMap { path in path.firstIndex(of: "?").map { String(path[path.index(after: $0)...]) } } ?? ""
        namespace = FormText.value("namespace", in: query)
        after = FormText.value("after", in: query)
        followsAll = FormText.value("follow", in: query) == "all"
        cursors = FormText.value("cursors", in: query)
    }
}
