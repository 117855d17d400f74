import Shared

/// Which shared folder a person means.
enum SharedPlace {
    static func find(_ path: String) throws(CommandFailure) -> (DrivePath, NamespaceID) {
        let place = try DrivePath(path)
        guard place.namespace != place.profile.home, place.path.isEmpty else {
            throw CommandFailure("\(path) is no shared folder. boxfs share list shows those that there are.")
        }
        return (place, place.namespace)
    }

    static func invitation(_ name: String, _ server: ServerAccess) throws(CommandFailure) -> NamespaceID {
        let found = try server.shares().filter { $0.path == nil && (name == $0.name || name == "\($0.owner)/\($0.name)" || name == $0.namespace.description) }
        guard let share = found.first, found.count == 1 else {
            throw CommandFailure(found.isEmpty ? "There is no invitation to \(name). boxfs share list shows them." : "\(found.count) invitations are called \(name): say OWNER/NAME.")
        }
        return share.namespace
    }
}
