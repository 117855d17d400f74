public enum AuditTag {}

/// One line of the audit: who did what to what, when, from where.
public struct AuditRecord: Codable, Hashable, Sendable {
    /// In the order of time, to the millisecond.
    public var id: Identifier<AuditTag>
    public var time: Timestamp
    /// What was done: `created`, `edited`, `renamed`, `removed`, `linked`, `changed` (attributes), `opened` (a device read the namespace;
    /// once an hour), `link-…`, `login`, `account-added` and so on.
    public var action: String
    /// The account's name; nil for visitors of links and for administrators.
    public var account: String?
    public var device: String?
    public var address: String?
    public var namespace: NamespaceID?
    public var node: NodeID?
    /// Where it lay afterwards; for what was removed, before.
    public var path: String?
    public var detail: String?
    public init(
        id: Identifier<AuditTag>, time: Timestamp, action: String, account: String?, device: String?, address: String?, namespace: NamespaceID?,
        node: NodeID?, path: String?, detail: String?
    ) {
        (self.id, self.time, self.action, self.account, self.device, self.address) = (id, time, action, account, device, address)
        (self.namespace, self.node, self.path, self.detail) = (namespace, node, path, detail)
    }

    public static let csvHeader = "time,action,account,device,address,path,detail,namespace,node"

    /// RFC 4180, without the line's end. Times as ISO 8601 in UTC.
    public var csv: String {
        [time.iso8601, action, account ?? "", device ?? "", address ?? "", path ?? "", detail ?? "", namespace?.description ?? "", node?.description ?? ""]
            .map(Self.field).joined(separator: ",")
    }

    private static func field(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { ",\"\r\n".unicodeScalars.contains($0) }) else { return text }
        var quoted = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" { quoted += "\"" }
            quoted.unicodeScalars.append(scalar)
        }
        return quoted + "\""
    }

    /// For people: columns divided by tabs.
    public var line: String {
        [time.iso8601, action, account ?? "-", device ?? "-", address ?? "-", path.map { "/" + $0 } ?? "", detail ?? ""].joined(separator: "\t")
    }
}

/// `GET /v1/namespaces/{namespace}/audit`: newest first.
public struct AuditPage: Codable, Hashable, Sendable {
    public var records: [AuditRecord]
    /// Give it back as `before` for older ones; nil on the last page.
    public var next: Identifier<AuditTag>?
    public init(records: [AuditRecord], next: Identifier<AuditTag>?) { (self.records, self.next) = (records, next) }
}
