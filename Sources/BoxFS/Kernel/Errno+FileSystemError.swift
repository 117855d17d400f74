import Glibc

extension FileSystemError {
    /// The error number that the program sees (errno(3)).
    var errorNumber: Int32 {
        switch self {
        case .notFound: ENOENT
        case .exists: EEXIST
        case .notDirectory: ENOTDIR
        case .isDirectory: EISDIR
        case .notEmpty: ENOTEMPTY
        case .invalid: EINVAL
        case .nameTooLong: ENAMETOOLONG
        case .notUTF8: EILSEQ
        case .notPermitted: EPERM
        case .accessDenied: EACCES
        case .readOnly: EROFS
        case .noSpace: ENOSPC
        case .quotaExceeded: EDQUOT
        case .fileTooBig: EFBIG
        case .tooManyLinks: EMLINK
        case .crossDevice: EXDEV
        case .notSupported: EOPNOTSUPP
        case .noAttribute: ENODATA
        case .resultTooLarge: ERANGE
        case .argumentTooLong: E2BIG
        case .noSuchOffset: ENXIO
        case .badHandle: EBADF
        case .stale: ESTALE
        case .interrupted: EINTR
        case .busy: EBUSY
        case .io: EIO
        case .missing: preconditionFailure("what is missing is fetched, not answered")
        }
    }
}
