import CFuse3
import Dispatch
import Glibc
import Shared

/// What libfuse's callbacks get as user data.
final class KernelContext: Sendable {
    /// Runs again what had to wait; libfuse's own threads stay free.
    static let workers = DispatchQueue(label: "fuse retry", qos: .userInitiated, attributes: .concurrent)

    let fileSystem: any FileSystemOperations
    let options: MountOptions
    let replay = ChangeReplay()
    let instruments: Instruments
    let waiting = WaitingRequests()
    let failedReads = FailedReads()

    init(fileSystem: any FileSystemOperations, options: MountOptions, instruments: Instruments) {
        self.fileSystem = fileSystem
        self.options = options
        self.instruments = instruments
    }

    static func of(_ request: fuse_req_t?) -> KernelContext {
        Unmanaged<KernelContext>.fromOpaque(fuse_req_userdata(request)).takeUnretainedValue()
    }

    typealias Operation = @Sendable (any FileSystemOperations, FuseRequest) throws(FileSystemError) -> Void

    /// Runs an operation until it needs nothing more; the operation answers a success, this a failure.
    func perform(_ request: FuseRequest, _ operation: @escaping Operation) {
        do throws(FileSystemError) {
            try request.during { () throws(FileSystemError) in try operation(fileSystem, request) }
        } catch {
            guard case .missing(let missing) = error else { return request.fail(error) }
            wait(for: missing, request, operation)
        }
    }

    func wait(for missing: Missing, _ request: FuseRequest, _ operation: @escaping Operation) {
        let isRead = request.call.operation == .read
        // Who shows a change to watchers waits for nobody: it would hold up the changes after it, and the end of the mount.
        if request.isReplay { return request.fail(.io) }
        if isRead, let wait = failedReads.recent(request.call.inode) {
            request.add(wait)
            return request.fail(.io)
        }
        let id = Interruptions.shared.makeID()
        request.watchInterrupts(id)
        let start = Clock.now()
        waiting.begin(request.call)
        let token = fileSystem.fetch(missing, since: request.began) { [self] error in
            Interruptions.shared.end(id)
            let wait = Wait(missing, nanoseconds: Clock.now() - start, error)
            request.add(wait)
            KernelContext.workers.async { [self] in
                if isRead, error == .io { failedReads.add(request.call.inode, wait) }
                if let error { request.fail(error) } else { perform(request, operation) }
                waiting.end(request.call)
            }
        }
        Interruptions.shared.register(id, token)
    }
}

func perform(_ request: fuse_req_t?, _ call: RequestCall, _ operation: @escaping KernelContext.Operation) {
    KernelContext.of(request).perform(FuseRequest(request!, call), operation)
}

/// The name in a folder that the kernel lent us, with the call that it makes; or the answer to a bad name.
func withName(
    _ request: fuse_req_t?, _ operation: RequestOperation, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>?,
    _ body: (String, RequestCall) -> Void
) {
    let length = strlen(name!)
    let bytes = UnsafeBufferPointer(start: UnsafeRawPointer(name!).assumingMemoryBound(to: UInt8.self), count: length)
    do throws(EntryName.Problem) {
        let name = try EntryName.validated(bytes)
        body(name, RequestCall(operation, parent, name))
    } catch {
        let number: Int32 = switch error {
        case .tooLong: ENAMETOOLONG
        case .notUTF8: EILSEQ
        case .empty: ENOENT
        case .forbiddenCharacter, .reserved: EINVAL
        }
        FuseRequest(request!, RequestCall(operation, parent)).fail(number)
    }
}

extension Wait {
    fileprivate init(_ missing: Missing, nanoseconds: UInt64, _ error: FileSystemError?) {
        let cause: Cause = switch missing {
        case .chunk: .chunk
        case .directory: .directory
        case .manifest, .versions, .removed, .version: .manifest
        case .cacheRoom, .pace: .room
        case .uploaded: .server
        }
        self.init(cause: cause, nanoseconds: nanoseconds, failed: error == nil ? nil : true)
        if case .chunk(let hash, let length, _) = missing { (chunk, bytes) = (hash.description, UInt64(length)) }
    }
}
