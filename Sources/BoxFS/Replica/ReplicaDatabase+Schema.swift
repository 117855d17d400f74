extension ReplicaDatabase {
    /// `PRAGMA user_version`. docs/FORMAT.md describes the tables; a change there is a new number and a migration.
    static let formatVersion = 8

    /// From each format to the next. 2: no segment was a patch; 3: rows named the pieces of patches
    /// (`SegmentRow.before4`); 4: each segment had a file; 5: segments alone told of what no record speaks of;
    /// 6: a slot had 4 MiB, and a row its number; 7: there was no `StatementJournal`.
    static let migrations = [
        2: """
            ALTER TABLE segments ADD COLUMN base INTEGER; ALTER TABLE segments ADD COLUMN base_length INTEGER;
            ALTER TABLE segments ADD COLUMN origin BLOB
            """,
        3: "ALTER TABLE segments ADD COLUMN known INTEGER",
        4: "ALTER TABLE segments ADD COLUMN bytes BLOB",
        5: """
            ALTER TABLE nodes ADD COLUMN unlogged INTEGER NOT NULL DEFAULT 0;
            CREATE INDEX nodes_unlogged ON nodes (inode) WHERE unlogged = 1
            """,
        6: "ALTER TABLE segments RENAME COLUMN slot TO start; UPDATE segments SET start = start * 4194304",
        7: "\(makeGeneration); DROP INDEX log_entry; CREATE INDEX log_entry ON log (parent, name) WHERE parent IS NOT NULL",
    ]

    /// Another one in each replica, so that a journal of another counts for nothing.
    private static let makeGeneration = "INSERT OR IGNORE INTO meta (key, value) VALUES ('generation', random() >> 1)"

    static let schema = """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        \(makeGeneration);

        -- The home (1) and the shared folders. root: an inode; junction: the home's node that stands for it there; lost: no right is left.
        CREATE TABLE namespaces (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, root INTEGER NOT NULL, junction BLOB, role TEXT NOT NULL,
            cursor INTEGER NOT NULL, lost INTEGER NOT NULL, caught_up INTEGER NOT NULL);

        -- inode: the kernel's number; the root is 1. hydrated: 0 entries unknown, 1 on their way, 2 all here.
        -- pages: packed hashes of the manifest's pages while the manifest itself is not here, otherwise null.
        -- unlogged: 1 when the content was changed and no record of the log says so yet.
        CREATE TABLE nodes (
            inode INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, mode INTEGER NOT NULL, uid INTEGER NOT NULL,
            gid INTEGER NOT NULL, device INTEGER NOT NULL, accessed INTEGER NOT NULL, modified INTEGER NOT NULL,
            changed INTEGER NOT NULL, created INTEGER NOT NULL, links INTEGER NOT NULL, size INTEGER NOT NULL,
            version BLOB, pages BLOB, target TEXT, xattrs BLOB, hydrated INTEGER NOT NULL, sequence INTEGER NOT NULL,
            namespace INTEGER NOT NULL, unlogged INTEGER NOT NULL DEFAULT 0);
        CREATE INDEX nodes_unlogged ON nodes (inode) WHERE unlogged = 1;
        CREATE INDEX nodes_unhydrated ON nodes (inode) WHERE hydrated < 2 AND mode & 61440 = 16384;
        CREATE INDEX nodes_unlinked ON nodes (inode) WHERE links = 0;

        CREATE TABLE entries (
            parent INTEGER NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, sequence INTEGER NOT NULL,
            PRIMARY KEY (parent, name)) WITHOUT ROWID;
        CREATE INDEX entries_inode ON entries (inode);

        -- A file's manifest, 1024 packed references a row; a slot that has a segment stands there as a hole.
        CREATE TABLE manifests (
            inode INTEGER NOT NULL, page INTEGER NOT NULL, packed BLOB NOT NULL, PRIMARY KEY (inode, page)) WITHOUT ROWID;
        -- Written data that is not sealed: for each slot a file in dirty/, or few bytes here, and 0 for file. start: the slot's, bytes from the file's;
        -- length: bytes from there that count.
        -- base: not null for a patch, whose file is its log: the file beneath, of which base_length bytes count; known: how far the row knows the log.
        -- origin: a packed reference to what the slot had before, while a power cut may take what was written.
        CREATE TABLE segments (
            inode INTEGER NOT NULL, start INTEGER NOT NULL, file INTEGER NOT NULL, length INTEGER NOT NULL,
            known INTEGER, base INTEGER, base_length INTEGER, origin BLOB, bytes BLOB,
            PRIMARY KEY (inode, start)) WITHOUT ROWID;

        -- Changes that the server does not have, in order. Identifiers are the wire's; kinds are LogKind; namespace: whose commit sends it.
        CREATE TABLE log (
            id INTEGER PRIMARY KEY AUTOINCREMENT, namespace INTEGER NOT NULL, kind INTEGER NOT NULL, inode INTEGER NOT NULL, node BLOB NOT NULL,
            parent BLOB, name TEXT, other_node BLOB, other_parent BLOB, other_name TEXT, detail, time INTEGER NOT NULL);
        CREATE INDEX log_node ON log (node);
        CREATE INDEX log_other_node ON log (other_node) WHERE other_node IS NOT NULL;
        CREATE INDEX log_entry ON log (parent, name) WHERE parent IS NOT NULL;
        CREATE INDEX log_other_entry ON log (other_parent, other_name) WHERE other_parent IS NOT NULL;

        -- The commits that are being sent, one for each namespace: repeated word for word until they are answered.
        CREATE TABLE outbox (namespace INTEGER PRIMARY KEY, last_log INTEGER NOT NULL, request BLOB NOT NULL, sealed BLOB NOT NULL);
        -- Rows of the change feed that wait until our own changes of the same thing are answered.
        CREATE TABLE deferred (namespace INTEGER NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL, sequence INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
        """
}
