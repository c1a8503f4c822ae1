// SPDX-License-Identifier: Apache-2.0
#include "npy.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <optional>
#include <string_view>

namespace negcos::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are read and written as they lie in memory");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kAlignment = 64;

// Text out of a file, short enough for a message.
std::string quoted(std::string_view text) {
    constexpr size_t kMost = 40;
    return std::string(text.substr(0, kMost)) + (text.size() > kMost ? "..." : "");
}

// The header is a Python dictionary literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class Dictionary {
public:
    explicit Dictionary(std::string_view text) : text_(text) {}

    void parse() {
        if (!text_.starts_with('{')) unexpected("'{'");  // Python may take what is before it for an indentation
        expect('{');
        while (!take('}')) {
            const std::string_view key = string("a key in quotes");
            expect(':');
            if (key == "descr")
                once(descr, key) = string("an element type in quotes (a structured one has no place here)");
            else if (key == "fortran_order")
                once(fortran_order, key) = boolean();
            else if (key == "shape")
                once(shape, key) = tuple();
            else
                throw NpyError("its header has the unknown key '" + quoted(key) + "'");
            if (!take(',')) {
                expect('}');
                break;
            }
        }
        // Spaces to the end of the line, then empty lines: any other is one that is indented.
        for (const char* padding : {" \t", "\n"}) at_ = std::min(text_.find_first_not_of(padding, at_), text_.size());
        if (at_ != text_.size()) unexpected("nothing but spaces and then newlines");
        if (!descr || !fortran_order || !shape) throw NpyError("its header lacks 'descr', 'fortran_order' or 'shape'");
    }

    struct Shape {
        std::string_view text;
        size_t dimensions = 0;
        int64_t rows = 0, cols = 0;
    };
    std::optional<std::string_view> descr;
    std::optional<bool> fortran_order;
    std::optional<Shape> shape;

private:
    [[noreturn]] void unexpected(const std::string& expected) const {
        const std::string_view rest = text_.substr(at_);
        throw NpyError("its header is malformed: expected " + expected + ", found " +
                       (rest.empty() ? "its end" : "\"" + quoted(rest) + "\""));
    }

    template <class T>
    static std::optional<T>& once(std::optional<T>& value, std::string_view key) {
        if (value) throw NpyError("its header says '" + std::string(key) + "' twice");
        return value;
    }

    void skip_space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) ++at_;
    }

    bool take(char c) {
        skip_space();
        if (at_ == text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    void expect(char c) {
        if (!take(c)) unexpected(std::string("'") + c + "'");
    }

    std::string_view string(const char* what) {
        skip_space();
        const char quote = at_ < text_.size() ? text_[at_] : '\0';
        if (quote != '\'' && quote != '"') unexpected(what);
        const size_t end = text_.find(quote, at_ + 1);
        if (end == std::string_view::npos) unexpected(what);
        const std::string_view value = text_.substr(at_ + 1, end - at_ - 1);
        at_ = end + 1;
        return value;
    }

    bool boolean() {
        skip_space();
        for (const bool value : {false, true}) {
            const std::string_view word = value ? "True" : "False";
            if (text_.substr(at_).starts_with(word)) {
                at_ += word.size();
                return value;
            }
        }
        unexpected("True or False");
    }

    int64_t size() {
        skip_space();
        int64_t value = 0;
        const char* begin = text_.data() + at_;
        const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
        if (error == std::errc::result_out_of_range)
            throw NpyError("its shape has a size beyond 2^63: " + quoted(text_.substr(at_)));
        if (error != std::errc() || (*begin == '0' && end - begin > 1)) unexpected("a size");  // as Python, no 010
        if (value < 0) throw NpyError("its shape has the negative size " + std::to_string(value));
        at_ += static_cast<size_t>(end - begin);
        return value;
    }

    Shape tuple() {
        skip_space();
        const size_t begin = at_;
        expect('(');
        Shape result;
        while (!take(')')) {
            (result.dimensions == 0 ? result.rows : result.cols) = size();
            ++result.dimensions;
            if (!take(',')) {
                if (result.dimensions == 1) unexpected("','");  // "(4)" is no tuple
                expect(')');
                break;
            }
        }
        result.text = text_.substr(begin, at_ - begin);
        return result;
    }

    std::string_view text_;
    size_t at_ = 0;
};

std::string listed(std::initializer_list<NpyType> types) {
    std::string text;
    for (const NpyType& type : types) {
        if (&type != types.begin()) text += &type + 1 == types.end() ? " or " : ", ";
        text += std::string("'") + npy_descr(type) + "'";
    }
    return text;
}

NpyType type_of(std::string_view descr, std::initializer_list<NpyType> accepted) {
    for (const NpyType type : accepted)
        if (descr == npy_descr(type)) return type;
    throw NpyError("its elements are '" + quoted(descr) + "', expected " + listed(accepted));
}

}  // namespace

const char* npy_descr(NpyType type) noexcept {
    switch (type) {
        case NpyType::f2:
            return "<f2";
        case NpyType::f4:
            return "<f4";
        case NpyType::f8:
            return "<f8";
        case NpyType::i4:
            return "<i4";
        case NpyType::i8:
            return "<i8";
    }
    return "";
}

size_t npy_size(NpyType type) noexcept {
    switch (type) {
        case NpyType::f2:
            return 2;
        case NpyType::f4:
        case NpyType::i4:
            return 4;
        case NpyType::f8:
        case NpyType::i8:
            return 8;
    }
    return 0;
}

NpyHeader parse_npy(std::span<const std::byte> file, std::initializer_list<NpyType> accepted, NpyShape expected) {
    return parse_npy_beginning(file, file.size(), accepted, expected);
}

NpyHeader parse_npy_beginning(std::span<const std::byte> beginning, std::optional<uint64_t> size,
                              std::initializer_list<NpyType> accepted, NpyShape expected) {
    const std::string_view bytes(reinterpret_cast<const char*>(beginning.data()), beginning.size());
    const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
    if (!bytes.starts_with(kMagic)) throw NpyError(bytes.empty() ? "the file is empty" : "not a .npy file");
    if (bytes.size() < kMagic.size() + 2) throw NpyError("the file ends inside its header");

    const int major = byte_at(6), minor = byte_at(7);
    if (major < 1 || major > 3 || minor != 0)
        throw NpyError("format version " + std::to_string(major) + "." + std::to_string(minor) +
                       ", expected 1.0, 2.0 or 3.0");
    const size_t length_size = major == 1 ? 2 : 4, start = kMagic.size() + 2 + length_size;
    if (bytes.size() < start) throw NpyError("the file ends inside its header");
    size_t length = 0;
    for (size_t i = 0; i < length_size; ++i) length |= static_cast<size_t>(byte_at(8 + i)) << (8 * i);
    if (size && length > *size - start)
        throw NpyError("its header claims " + std::to_string(length) + " bytes, but the file has only " +
                       std::to_string(*size - start) + " more");
    if (length > kNpyMostHeader)
        throw NpyError("its header has " + std::to_string(length) + " bytes, expected at most " +
                       std::to_string(kNpyMostHeader));

    Dictionary dictionary(bytes.substr(start, length));
    dictionary.parse();
    const NpyType type = type_of(*dictionary.descr, accepted);
    const Dictionary::Shape& shape = *dictionary.shape;
    const bool flat = expected == NpyShape::list && shape.dimensions == 1;
    const int64_t rows = shape.rows, cols = flat ? 1 : shape.cols;
    if (expected == NpyShape::matrix && shape.dimensions != 2)
        throw NpyError("its shape is " + quoted(shape.text) + ", expected 2 dimensions, got " +
                       std::to_string(shape.dimensions));
    if (expected == NpyShape::list && !flat && (shape.dimensions != 2 || cols != 1))
        throw NpyError("its shape is " + quoted(shape.text) + ", expected (N,) or (N, 1)");

    const size_t offset = start + length;
    // As NumPy, beside a size of 0 as well.
    int64_t needed = 0;
    if (__builtin_mul_overflow(std::max<int64_t>(rows, 1), std::max<int64_t>(cols, 1), &needed) ||
        __builtin_mul_overflow(needed, npy_size(type), &needed))
        throw NpyError("its shape " + quoted(shape.text) + " is larger than the address space");
    if (rows == 0 || cols == 0) needed = 0;
    if (size && static_cast<uint64_t>(needed) != *size - offset)
        throw NpyError(std::to_string(*size - offset) + " bytes of elements, expected " + std::to_string(needed) +
                       " for shape " + quoted(shape.text) + " of '" + npy_descr(type) + "'");
    return {type, rows, cols, offset, *dictionary.fortran_order && rows > 1 && cols > 1};
}

std::string npy_preamble(NpyType type, int64_t rows, int64_t cols) {
    std::string text = std::string("{'descr': '") + npy_descr(type) + "', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(cols) + "), }";
    const size_t before = kMagic.size() + 4;
    text.append(kAlignment - 1 - (before + text.size()) % kAlignment, ' ');
    text += '\n';

    std::string preamble(kMagic);
    preamble += '\1';
    preamble += '\0';
    preamble += static_cast<char>(text.size() & 0xff);
    preamble += static_cast<char>(text.size() >> 8);
    return preamble + text;
}

}  // namespace negcos::cli
