import Shared

/// The tables, in SQL that SQLite and PostgreSQL both take; `BLOB` becomes `BYTEA` there. docs/FORMAT.md says what they mean.
enum Schema {
    static let version: Int64 = 1

    static func migrate(_ sql: any SQLConnection) throws {
        try sql.execute("CREATE TABLE IF NOT EXISTS server (key TEXT PRIMARY KEY, value TEXT NOT NULL)", [])
        let found = try sql.first("SELECT value FROM server WHERE key = $1", [.text("schema")]).flatMap { $0.text(0) }.flatMap { Int64($0) } ?? 0
        guard found <= version else { throw StoreError(description: "The data was written by a newer boxfs-server (schema \(found)).") }
        guard found == 0 else { return }
        for statement in tables + historyTables + linkTables + sharingTables { try sql.execute(statement, []) }
        for (key, value) in [("schema", String(version)), ("identity", ServerID.make().description), ("epoch", "1")] {
            try sql.execute("INSERT INTO server (key, value) VALUES ($1, $2)", [.text(key), .text(value)])
        }
    }

    private static let tables = [
        """
        CREATE TABLE accounts (
            id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, salt BLOB NOT NULL, password BLOB NOT NULL, disabled BIGINT NOT NULL,
            home BLOB NOT NULL, created BIGINT NOT NULL, settings TEXT, asks_before_sharing BIGINT NOT NULL DEFAULT 0)
        """,
        """
        CREATE TABLE devices (
            id BLOB PRIMARY KEY, account BLOB NOT NULL REFERENCES accounts (id), name TEXT NOT NULL, token BLOB NOT NULL UNIQUE,
            created BIGINT NOT NULL, used BIGINT)
        """,
        "CREATE INDEX devices_account ON devices (account)",
        """
        CREATE TABLE namespaces (
            id BLOB PRIMARY KEY, root BLOB NOT NULL, sequence BIGINT NOT NULL, quota BIGINT, used BIGINT NOT NULL, nodes BIGINT NOT NULL,
            settings TEXT)
        """,
        """
        CREATE TABLE members (
            namespace BLOB NOT NULL REFERENCES namespaces (id), account BLOB NOT NULL REFERENCES accounts (id), role TEXT NOT NULL,
            PRIMARY KEY (namespace, account))
        """,
        "CREATE INDEX members_account ON members (account)",
        """
        CREATE TABLE nodes (
            id BLOB PRIMARY KEY, namespace BLOB NOT NULL, sequence BIGINT NOT NULL, mode BIGINT NOT NULL, uid BIGINT NOT NULL,
            gid BIGINT NOT NULL, device BIGINT NOT NULL, accessed BIGINT NOT NULL, modified BIGINT NOT NULL, changed BIGINT NOT NULL,
            created BIGINT NOT NULL, links BIGINT NOT NULL, version BLOB, target TEXT, xattrs TEXT, arrived BIGINT NOT NULL, deleted_at BIGINT,
            purged_at BIGINT, successor BLOB, shared BLOB)
        """,
        "CREATE INDEX nodes_feed ON nodes (namespace, sequence)",
        "CREATE INDEX nodes_shared ON nodes (shared) WHERE shared IS NOT NULL",
        "CREATE INDEX nodes_junctions ON nodes (namespace) WHERE shared IS NOT NULL",
        "CREATE INDEX nodes_trash ON nodes (namespace, deleted_at) WHERE deleted_at IS NOT NULL AND purged_at IS NULL",
        """
        CREATE TABLE entries (
            id BLOB PRIMARY KEY, namespace BLOB NOT NULL, parent BLOB NOT NULL, name TEXT NOT NULL, node BLOB NOT NULL,
            sequence BIGINT NOT NULL, created_at BIGINT NOT NULL, deleted_at BIGINT)
        """,
        "CREATE UNIQUE INDEX entries_live ON entries (parent, name) WHERE deleted_at IS NULL",
        "CREATE INDEX entries_dead ON entries (parent, name) WHERE deleted_at IS NOT NULL",
        "CREATE INDEX entries_node ON entries (node)",
        "CREATE INDEX entries_feed ON entries (namespace, sequence)",
        "CREATE TABLE node_aliases (alias BLOB PRIMARY KEY, node BLOB NOT NULL)",
        """
        CREATE TABLE versions (
            id BLOB PRIMARY KEY, node BLOB NOT NULL, size BIGINT NOT NULL, inline BLOB, pages BLOB, author BLOB, device TEXT NOT NULL,
            device_id BLOB, created BIGINT NOT NULL, modified BIGINT NOT NULL, window_start BIGINT NOT NULL, superseded BIGINT, kind TEXT NOT NULL,
            parents BLOB, name TEXT)
        """,
        "CREATE INDEX versions_node ON versions (node, created)",
        "CREATE INDEX versions_superseded ON versions (superseded) WHERE superseded IS NOT NULL",
        "CREATE TABLE manifest_pages (hash BLOB PRIMARY KEY, data BLOB NOT NULL, reference_count BIGINT NOT NULL)",
        "CREATE INDEX manifest_pages_free ON manifest_pages (hash) WHERE reference_count = 0",
        "CREATE TABLE namespace_pages (namespace BLOB NOT NULL, hash BLOB NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (namespace, hash))",
        """
        CREATE TABLE chunks (
            hash BLOB PRIMARY KEY, length BIGINT NOT NULL, object TEXT NOT NULL, byte_offset BIGINT NOT NULL, reference_count BIGINT NOT NULL,
            arrived BIGINT NOT NULL)
        """,
        "CREATE INDEX chunks_object ON chunks (object)",
        "CREATE INDEX chunks_free ON chunks (arrived) WHERE reference_count = 0",
        "CREATE TABLE objects (name TEXT PRIMARY KEY, bytes BIGINT NOT NULL, arrived BIGINT NOT NULL)",
        "CREATE TABLE namespace_chunks (namespace BLOB NOT NULL, hash BLOB NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (namespace, hash))",
        """
        CREATE TABLE uploads (
            id BLOB PRIMARY KEY, namespace BLOB NOT NULL, account BLOB NOT NULL, created BIGINT NOT NULL, expires BIGINT NOT NULL)
        """,
        "CREATE INDEX uploads_expires ON uploads (expires)",
        """
        CREATE TABLE upload_chunks (
            upload BLOB NOT NULL, hash BLOB NOT NULL, length BIGINT NOT NULL, is_stored BIGINT NOT NULL, is_needed BIGINT NOT NULL,
            PRIMARY KEY (upload, hash))
        """,
        "CREATE INDEX upload_chunks_hash ON upload_chunks (hash)",
        "CREATE TABLE upload_pages (upload BLOB NOT NULL, hash BLOB NOT NULL, is_stored BIGINT NOT NULL, PRIMARY KEY (upload, hash))",
        "CREATE INDEX upload_pages_hash ON upload_pages (hash)",
        "CREATE TABLE commits (id BLOB PRIMARY KEY, namespace BLOB NOT NULL, answer TEXT NOT NULL, created BIGINT NOT NULL)",
        "CREATE INDEX commits_created ON commits (created)",
        """
        CREATE TABLE audit (
            id BLOB PRIMARY KEY, time BIGINT NOT NULL, account BLOB, device TEXT, address TEXT, action TEXT NOT NULL, namespace BLOB, node BLOB,
            path TEXT, detail TEXT)
        """,
        "CREATE INDEX audit_time ON audit (time)",
        "CREATE INDEX audit_namespace ON audit (namespace, id)",
    ]
}
