extension RandomAccessCollection {
    /// Binary search: the first index whose element, like all behind it, belongs to the second part; `endIndex` if none does.
    func partitioningIndex(where isInSecond: (Element) -> Bool) -> Index {
        var low = startIndex, count = count
        while count > 0 {
            let half = count / 2, middle = index(low, offsetBy: half)
            if isInSecond(self[middle]) { count = half } else { (low, count) = (index(after: middle), count - half - 1) }
        }
        return low
    }
}
