import Shared

extension Mount {
    /// Opens the replica, mounts, and begins to synchronize.
    ///
    /// Needs the server only for the first mount of a state folder. The caller holds the folder's lock.
    /// - Throws: a sentence, and `.unreachable`, `.busy` or `.failure`; then nothing is mounted.
    static func start(_ configuration: MountConfiguration) async throws(CommandFailure) -> RunningMount {
        let remote = Remote(ConnectionSettings(
            server: configuration.profile.server, token: configuration.profile.token,
            uploadLimit: Int64(clamping: configuration.uploadLimit), downloadLimit: Int64(clamping: configuration.downloadLimit)))
        let replica = try await openReplica(configuration, remote: remote)
        await replica.synchronizer.bringRoot(seconds: 2)
        do throws(MountError) {
            let instruments = Instruments()
            let session = try MountSession(
                fileSystem: replica.fileSystem, mountPoint: configuration.mountPoint,
                options: MountOptions(allowOther: configuration.allowOther, posixOwners: configuration.posixOwners),
                instruments: instruments)
            let mount = Mount(
                replica: replica, session: session, instruments: instruments,
                about: About(server: configuration.profile.server, account: configuration.profile.user, mountPoint: configuration.mountPoint))
            try mount.begin()
            let mountPoint = configuration.mountPoint
            return RunningMount(control: mount, run: { mount.run() }, detach: { try? MountPoint.detach(mountPoint, lazy: true) })
        } catch {
            replica.tree.database.close()
            throw CommandFailure(error.isBusy ? .busy : .failure, error.description)
        }
    }

    private static func openReplica(_ configuration: MountConfiguration, remote: Remote) async throws(CommandFailure) -> Replica {
        let replica = ReplicaConfiguration(
            stateDirectory: configuration.stateFolder, cacheLimitBytes: configuration.cacheLimitBytes,
            deadlineSeconds: configuration.deadlineSeconds, namespace: configuration.profile.home, device: configuration.device,
            options: FileSystemOptions(
                posixOwners: configuration.posixOwners, uid: configuration.uid, gid: configuration.gid, durability: configuration.durability),
            scrubRestSeconds: configuration.scrubRestSeconds)
        do throws(Replica.StartError) { return try await Replica.open(replica, remote: remote) } catch {
            switch error {
            case .firstMountNeedsServer(.problem(let problem)) where problem.code == ProblemCode.unauthorized.rawValue:
                throw CommandFailure(
                    .notLoggedIn, "The server does not accept this machine's token any more. Log in again: boxfs login \(configuration.profile.server) --user \(configuration.profile.user)")
            case .firstMountNeedsServer: throw CommandFailure(.unreachable, "\(error)")
            case .local, .damaged, .wrongNamespace: throw CommandFailure("\(error)")
            }
        }
    }
}
