import Glibc

/// Programs that this one starts. (fork(2) alone is not safe once the Swift runtime has threads.)
enum ChildProcess {
    /// posix_spawnp(3): a program without a `/` is looked for in the search path.
    /// - Parameter words: the arguments, from the program's own name on.
    /// - Returns: nil, with errno, when it cannot be started.
    static func start(_ program: String, _ words: [String], _ actions: UnsafePointer<posix_spawn_file_actions_t>? = nil) -> pid_t? {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var process = pid_t()
        let code = posix_spawnp(&process, program, actions, nil, &arguments, environ)
        errno = code
        return code == 0 ? process : nil
    }

    /// - Returns: the wait status, waitpid(2).
    @discardableResult static func wait(for process: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return status
    }
}
