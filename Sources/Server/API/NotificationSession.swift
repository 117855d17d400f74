import NIOCore
import NIOWebSocket
import Shared

/// A WebSocket whose subscriber is told of changes. Speaks text frames with pages; hears pings, pongs and the close.
final class NotificationSession: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    /// Between pings; a subscriber that is silent for two of them is gone.
    private static let pingInterval = TimeAmount.seconds(20)
    private let feed: NotificationFeed
    private let admission: NotificationFeed.Admission
    private var task: Task<Void, Never>?
    private var pings: RepeatedTask?
    private var isHeard = true
    private var isClosing = false

    init(_ feed: NotificationFeed, _ admission: NotificationFeed.Admission) { (self.feed, self.admission) = (feed, admission) }

    func handlerAdded(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop), loop = context.eventLoop
        let (feed, admission) = (feed, admission)
        task = Task {
            var code = WebSocketErrorCode.goingAway
            do {
                try await feed.run(admission) { page in
                    try await loop.flatSubmit {
                        let (session, context) = bound.value
                        return session.send(.text, page, context)
                    }.get()
                }
            } catch let error as DriveError {
                switch error {
                case .unauthorized, .notFound, .forbidden: code = .policyViolation
                default: code = .unexpectedServerError
                }
            } catch { code = .unexpectedServerError }
            let last = code
            loop.execute {
                let (session, context) = bound.value
                session.end(last, context)
            }
        }
        pings = context.eventLoop.scheduleRepeatedTask(initialDelay: Self.pingInterval, delay: Self.pingInterval) { _ in
            let (session, context) = bound.value
            guard session.isHeard else { return context.close(promise: nil) }
            session.isHeard = false
            _ = session.send(.ping, ByteBuffer(), context)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { stop() }

    func channelInactive(context: ChannelHandlerContext) {
        stop()
        context.fireChannelInactive()
    }

    private func stop() {
        task?.cancel()
        pings?.cancel()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        isHeard = true
        switch frame.opcode {
        case .ping: _ = send(.pong, frame.unmaskedData, context)
        case .connectionClose:
            if isClosing { return context.close(promise: nil) }
            isClosing = true
            stop()
            let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
            send(.connectionClose, frame.unmaskedData, context).whenComplete { _ in bound.value.close(promise: nil) }
        default: break  // what a subscriber says is not asked for
        }
    }

    /// The server ends: connections that no request keeps are closed.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ChannelShouldQuiesceEvent { end(.goingAway, context) } else { context.fireUserInboundEventTriggered(event) }
    }

    private func end(_ code: WebSocketErrorCode, _ context: ChannelHandlerContext) {
        guard !isClosing, context.channel.isActive else { return }
        isClosing = true
        stop()
        var body = ByteBuffer()
        body.write(webSocketErrorCode: code)
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        send(.connectionClose, body, context).whenComplete { _ in bound.value.close(promise: nil) }
    }

    /// - Returns: done when the system's socket has taken the frame.
    private func send(_ opcode: WebSocketOpcode, _ data: ByteBuffer, _ context: ChannelHandlerContext) -> EventLoopFuture<Void> {
        context.writeAndFlush(wrapOutboundOut(WebSocketFrame(fin: true, opcode: opcode, data: data)))
    }
}
