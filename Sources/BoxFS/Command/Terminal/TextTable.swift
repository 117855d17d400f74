/// Lines in columns: the first to the left, the others to the right.
struct TextTable {
    var rows: [[String]] = []

    var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (column, text) in row.enumerated() {
                let space = String(repeating: " ", count: widths[column] - text.count)
                line += (column == 0 ? "" : "  ") + (column == 0 ? text + space : space + text)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}
