extension Schema {
    /// Why somebody is a member: `members` holds the highest role of an account's grants in a namespace. Owners need none.
    static let sharingTables = [
        // source: a group, or the namespace itself for who was invited by name.
        """
        CREATE TABLE grants (
            namespace BLOB NOT NULL, account BLOB NOT NULL, source BLOB NOT NULL, role TEXT NOT NULL, granted_by BLOB NOT NULL,
            created BIGINT NOT NULL, PRIMARY KEY (namespace, account, source))
        """,
        "CREATE INDEX grants_account ON grants (account)",
        "CREATE INDEX grants_source ON grants (source)",
        "CREATE TABLE groups (id BLOB PRIMARY KEY, owner BLOB NOT NULL, name TEXT NOT NULL, UNIQUE (owner, name))",
        "CREATE TABLE group_members (group_id BLOB NOT NULL, account BLOB NOT NULL, PRIMARY KEY (group_id, account))",
        "CREATE TABLE group_shares (group_id BLOB NOT NULL, namespace BLOB NOT NULL, role TEXT NOT NULL, PRIMARY KEY (group_id, namespace))",
        // What is about to change its namespace; empty outside of a transaction.
        "CREATE TABLE moving (node BLOB PRIMARY KEY)",
    ]
}
