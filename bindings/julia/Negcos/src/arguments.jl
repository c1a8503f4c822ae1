# SPDX-License-Identifier: Apache-2.0
#
# Julia's values as those of C: every check that the C library cannot make, or would make in the words of another language.

if isdefined(Core, :BFloat16)
    const BFloat16 = Core.BFloat16
else
    primitive type BFloat16 <: AbstractFloat 16 end
    Base.Float32(x::BFloat16) = reinterpret(Float32, UInt32(reinterpret(UInt16, x)) << 16)
    Base.Float64(x::BFloat16) = Float64(Float32(x))
    function BFloat16(x::Float32) # to nearest, ties to even; a NaN stays one
        bits = reinterpret(UInt32, x)
        isnan(x) && return reinterpret(BFloat16, (bits >> 16) % UInt16 | 0x0040)
        return reinterpret(BFloat16, ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) % UInt16)
    end
    BFloat16(x::Union{Float16,Integer}) = BFloat16(Float32(x))
    Base.show(io::IO, x::BFloat16) = print(io, "BFloat16(", Float32(x), ")")
end

"""
    Negcos.BFloat16

Julia's own `Core.BFloat16` where there is one (1.11 and later; BFloat16s.jl gives it arithmetic), otherwise a type of the
same 16 bits that converts to and from `Float32`. Any 16 bits can be passed as it: `reinterpret(Negcos.BFloat16, x)`
copies nothing.
"""
BFloat16

# A method more makes another type of the same bits known: Negcos.dtype(::Type{MyBFloat16}) = Negcos.DTYPE.bf16
dtype(::Type{Float32}) = DTYPE.f32
dtype(::Type{Float64}) = DTYPE.f64
dtype(::Type{Float16}) = DTYPE.f16
dtype(::Type{BFloat16}) = DTYPE.bf16
dtype(::Type) = nothing
function dtype(name, T)
    dtype(T) === nothing &&
        throw(ArgumentError("$name: elements are $T, expected Float32, Float64, Float16 or Negcos.BFloat16"))
    return dtype(T)
end

list(names) = join(names, ", ", " and ")

# Enumerators are Symbols; `exclude` may be several.
function enumerator(name, value)
    table = ENUMERATORS[name]
    value isa Symbol && haskey(table, value) && return Int32(table[value])
    throw(ArgumentError("$name = $(repr(value)): there are $(list(map(repr, keys(table))))"))
end
function enumerator(name, values::Union{Tuple,AbstractVector})
    name === :exclude || throw(ArgumentError("$name = $(repr(values)): expected one Symbol"))
    return reduce(|, (enumerator(name, value) for value in values); init = Int32(0))
end

function number(name, ::Type{T}, value) where {T<:Integer}
    value isa Integer && typemin(T) <= value <= typemax(T) && return T(value)
    throw(ArgumentError("$name = $(repr(value)): expected an integer from $(typemin(T)) to $(typemax(T))"))
end
function number(name, ::Type{Float64}, value)
    value isa Real && return Float64(value)
    throw(ArgumentError("$name = $(repr(value)): expected a real number"))
end

unknown_keyword(name, known) = throw(ArgumentError("no keyword argument $name: there are $(list(known))"))

# Sets fields of a C struct from keyword arguments. `others` are keywords that the caller deals with.
function set_fields!(value::T, arguments, own, others) where {T}
    for (name, argument) in pairs(arguments)
        if name in own
            x = haskey(ENUMERATORS, name) ? enumerator(name, argument) : number(name, fieldtype(T, name), argument)
            setfield!(value, name, x)
        elseif !(name in others)
            unknown_keyword(name, (own..., others...))
        end
    end
    return value
end

# A d x n matrix of columns = the library's n x d matrix of rows, in place. Whoever calls keeps x alive.
function matrix(name, x::AbstractMatrix, T = eltype(x), expected = size(x))
    size(x) == expected || throw(DimensionMismatch("$name: size $(size(x)), expected $expected"))
    (d, n), code = expected, dtype(name, T)
    column_stride = strided(name, x, T) && n > 1 ? stride(x, 2) : d
    d > 1 && stride(x, 1) != 1 &&
        throw(ArgumentError("$name: stride(x, 1) is $(stride(x, 1)), expected 1: a column must be contiguous"))
    column_stride >= d ||
        throw(ArgumentError("$name: stride(x, 2) is $column_stride, expected at least the $d elements of a column"))
    return CMatrix(convert(Ptr{T}, pointer(x)), n, d, column_stride, code, 0)
end

# n numbers = the library's n x 1 matrix.
function column(name, x::AbstractVector, T, n)
    length(x) == n || throw(DimensionMismatch("$name: length $(length(x)), expected $n"))
    code = dtype(name, T)
    step = strided(name, x, T) && n > 1 ? stride(x, 1) : 1
    step >= 1 || throw(ArgumentError("$name: stride(x, 1) is $step, expected at least 1"))
    return CMatrix(convert(Ptr{T}, pointer(x)), n, 1, step, code, 0)
end

# An array without gaps.
function contiguous(name, x::AbstractArray, ::Type{T}, expected) where {T}
    size(x) == expected || throw(DimensionMismatch("$name: size $(size(x)), expected $expected"))
    strided(name, x, T)
    all(k -> size(x, k) == 1 || stride(x, k) == prod(size(x)[1:k-1]), 1:ndims(x)) || isempty(x) ||
        throw(ArgumentError("$name: strides $(strides(x)), expected an array without gaps"))
    return convert(Ptr{T}, pointer(x))
end
contiguous(name, ::Nothing, ::Type{T}, expected) where {T} = Ptr{T}(C_NULL)

# What is no array, or has another number of dimensions.
matrix(name, x, _...) = wrong_kind(name, x, "a matrix")
column(name, x, _...) = wrong_kind(name, x, "a vector")
contiguous(name, x, _...) = wrong_kind(name, x, "an array")
wrong_kind(name, x, expected) = throw(ArgumentError("$name: a $(typeof(x)), expected $expected"))

# Elements of type T in memory of their own.
function strided(name, x, T)
    eltype(x) === T || throw(ArgumentError("$name: elements are $(eltype(x)), expected $T"))
    x isa StridedArray ||
        throw(ArgumentError("$name: a $(typeof(x)) is not an array in memory with strides; collect or copy makes one"))
    return true
end

"""
    Negcos.ZeroBased(rows)

Rows of documents as the C library has them: the first is 0, and -1 is "absent". `positives` is then a `Vector{Int64}`,
`negatives` a `rounds × B` `Matrix{Int32}` (column i: the negatives of query i), and neither is copied. Without this mark
rows count from 1, 0 is "absent", and the call converts them into a buffer that the context keeps.
"""
struct ZeroBased{A<:AbstractArray}
    rows::A
end

rows(name, x, _...) = wrong_kind(name, x, "an array of integers, or Negcos.ZeroBased of one")
rows(name, ::Nothing, ::Vector{T}, expected, valid) where {T} = Ptr{T}(C_NULL)
rows(name, x::ZeroBased, ::Vector{T}, expected, valid) where {T} = contiguous(name, x.rows, T, expected)
function rows(name, x::AbstractArray{<:Integer}, buffer::Vector{T}, expected, valid) where {T}
    size(x) == expected || throw(DimensionMismatch("$name: size $(size(x)), expected $expected"))
    resize!(buffer, length(x))
    for (k, row) in enumerate(x)
        row in valid || throw(ArgumentError("$name: element $k is $row, expected $(first(valid)) to $(last(valid))"))
        buffer[k] = row - 1
    end
    return pointer(buffer)
end

# Where the library writes rows, and what makes them the caller's.
written_rows(name, x::ZeroBased, expected) = contiguous(name, x.rows, Int32, expected)
written_rows(name, x::AbstractMatrix, expected) = contiguous(name, x, Int32, expected)
written_rows(name, x, _) = wrong_kind(name, x, "a matrix, or Negcos.ZeroBased of one")
count_from_one!(x::ZeroBased) = x
count_from_one!(x::AbstractMatrix) = (x .+= Int32(1))
