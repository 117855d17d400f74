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

    init(fileSystem: any FileSystemOperations, options: MountOptions) {
        self.fileSystem = fileSystem
        self.options = options
    }

    static func of(_ request: fuse_req_t?) -> KernelContext {
        Unmanaged<KernelContext>.fromOpaque(fuse_req_userdata(request)).takeUnretainedValue()
    }

    typealias Operation = @Sendable (any FileSystemOperations, FuseRequest) throws(FileSystemError) -> Void

    /// Runs an operation until it needs nothing more; the operation answers a success, this a failure.
    func perform(_ request: FuseRequest, _ operation: @escaping Operation) {
        do throws(FileSystemError) {
            try operation(fileSystem, request)
        } catch {
            guard case .missing(let missing) = error else { return request.fail(error) }
            wait(for: missing, request, operation)
        }
    }

    func wait(for missing: Missing, _ request: FuseRequest, _ operation: @escaping Operation) {
        let id = Interruptions.shared.makeID()
        request.watchInterrupts(id)
        let token = fileSystem.fetch(missing) { [self] error in
            Interruptions.shared.end(id)
            KernelContext.workers.async { [self] in
                if let error { request.fail(error) } else { perform(request, operation) }
            }
        }
        Interruptions.shared.register(id, token)
    }
}

func perform(_ request: fuse_req_t?, _ operation: @escaping KernelContext.Operation) {
    KernelContext.of(request).perform(FuseRequest(request!), operation)
}

/// The name that the kernel lent us, or the answer to a bad one.
func withName(_ request: fuse_req_t?, _ name: UnsafePointer<CChar>?, _ body: (String) -> Void) {
    let length = strlen(name!)
    let bytes = UnsafeBufferPointer(start: UnsafeRawPointer(name!).assumingMemoryBound(to: UInt8.self), count: length)
    do throws(EntryName.Problem) {
        body(try EntryName.validated(bytes))
    } catch {
        let number: Int32 = switch error {
        case .tooLong: ENAMETOOLONG
        case .notUTF8: EILSEQ
        case .empty: ENOENT
        case .forbiddenCharacter, .reserved: EINVAL
        }
        fuse_reply_err(request, number)
    }
}
