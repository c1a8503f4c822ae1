# SPDX-License-Identifier: Apache-2.0
#
# The C ABI as negcos.h states it: enumerators, structs, functions. The tests compare it with the recorded one.

const VERSION_OF_HEADER = v"0.1"

# Enumerators by the names of Julia's keyword arguments; `callback` of the header is `julia` here.
const STATUS = (
    ok = 0, null_argument = 10, shape = 11, dtype = 12, value = 13, overlap = 14, struct_size = 15, out_of_memory = 20,
    workspace_limit = 21, threads = 22, unsupported_isa = 30, unsupported = 31, io = 40, internal = 90,
)
const DTYPE = (f32 = 0, f64 = 1, f16 = 2, bf16 = 3)
const ENUMERATORS = (
    threading = (default = 0, serial = 1, tbb = 2, openmp = 3, julia = 4),
    objective = (softmax = 0, batch_softmax = 1, sigmoid = 2, decoupled = 3),
    similarity = (cosine = 0, dot = 1),
    sampling = (shuffle = 0, derangement = 1, cyclic = 2, uniform = 3, log_uniform = 4, given = 5, all = 6, groups = 8),
    reduction = (mean = 0, sum = 1),
    direction = (query_to_document = 0, both = 1),
    correction = (all_candidates = 0, negatives_only = 1),
    exclude = (same_document_id = 1, same_query_id = 2),
    method = (streaming = 0, count_min = 1),
)

# negcos_const_matrix and negcos_matrix: the same bytes.
struct CMatrix
    data::Ptr{Cvoid}
    rows::Int64
    cols::Int64
    row_stride::Int64
    dtype::Int32
    reserved::Int32
end

# A struct that may grow starts with struct_size and is made by `defaults`, which lets the library fill it.
mutable struct CContextOptions
    struct_size::UInt32
    threads::Int32
    threading::Int32
    reserved::Int32
    isa::Ptr{Cvoid}
    parallel_for::Ptr{Cvoid}
    parallel_for_data::Ptr{Cvoid}
    workspace_limit::UInt64
    CContextOptions() = new()
end

mutable struct COptions
    struct_size::UInt32
    objective::Int32
    similarity::Int32
    sampling::Int32
    rounds::Int32
    reduction::Int32
    direction::Int32
    exclude::Int32
    seed::UInt64
    step::UInt64
    scale::Float64
    temperature::Float64
    bias::Float64
    norm_floor::Float64
    margin::Float64
    label_smoothing::Float64
    hardness::Float64
    false_negative_margin::Float64
    correction::Int32
    prefix_count::Int32
    prefix_dims::Ptr{Int32}
    prefix_weights::Ptr{Float64}
    COptions() = new()
end

mutable struct CBatch
    struct_size::UInt32
    reserved::UInt32
    queries::CMatrix
    documents::CMatrix
    hard_negatives::CMatrix
    positives::Ptr{Int64}
    negatives::Ptr{Int32}
    document_ids::Ptr{Int64}
    query_ids::Ptr{Int64}
    log_probability::Ptr{Float64}
    weights::Ptr{Float64}
    CBatch() = new()
end

mutable struct CResult
    struct_size::UInt32
    reserved::UInt32
    loss::Float64
    grad_scale::Float64
    grad_bias::Float64
    accuracy::Float64
    mean_reciprocal_rank::Float64
    excluded::Int64
    zero_rows::Int64
    losses::CMatrix
    hit_probability::CMatrix
    logits::CMatrix
    grad_queries::CMatrix
    grad_documents::CMatrix
    grad_hard_negatives::CMatrix
    negatives::Ptr{Int32}
    CResult() = new()
end

mutable struct CFrequencyOptions
    struct_size::UInt32
    method::Int32
    hashes::Int32
    reserved::Int32
    buckets::Int64
    learning_rate::Float64
    initial_gap::Float64
    seed::UInt64
    CFrequencyOptions() = new()
end

const INITIALISERS = (
    (CContextOptions, :negcos_context_options_init),
    (COptions, :negcos_options_init),
    (CBatch, :negcos_batch_init),
    (CResult, :negcos_result_init),
    (CFrequencyOptions, :negcos_frequency_options_init),
)
for (T, name) in INITIALISERS
    @eval function defaults(::Type{$T})
        value = $T()
        ccall(functions[$(QuoteNode(name))], Cvoid, (Ref{$T}, Csize_t), value, sizeof($T))
        return value
    end
end

# The library is chosen when the module is loaded, and its functions are looked up then.
const functions = Dict{Symbol,Ptr{Cvoid}}()
const FUNCTIONS = (
    :negcos_version, :negcos_status_string, :negcos_last_error,
    :negcos_isa_count, :negcos_isa_name, :negcos_isa_available,
    :negcos_context_create, :negcos_context_destroy, :negcos_context_isa, :negcos_context_threads,
    :negcos_evaluate, :negcos_sample,
    :negcos_frequency_create, :negcos_frequency_update, :negcos_frequency_log_probability,
    :negcos_frequency_save, :negcos_frequency_load, :negcos_frequency_destroy,
    last.(INITIALISERS)...,
)

const HOW_TO_INSTALL = """
    Install it: in a checkout of negcos `./dev build && sudo meson install -C build && sudo ldconfig`; or set the
    environment variable NEGCOS_LIBRARY to the path of libnegcos.so before Negcos is loaded."""

function open_library()
    chosen = get(ENV, "NEGCOS_LIBRARY", "")
    reason = ""
    for name in (isempty(chosen) ? ("libnegcos.so.0", "libnegcos.0.dylib", "libnegcos") : (chosen,))
        try
            return Libdl.dlopen(name)
        catch exception
            reason = sprint(showerror, exception)
        end
    end
    which = isempty(chosen) ? "libnegcos" : "NEGCOS_LIBRARY = $(repr(chosen))"
    error("$which cannot be loaded: $reason\n$HOW_TO_INSTALL")
end

function load_library()
    library = open_library()
    for name in FUNCTIONS
        pointer = Libdl.dlsym_e(library, name)
        pointer == C_NULL && error("$(Libdl.dlpath(library)) has no function $name. $HOW_TO_INSTALL")
        functions[name] = pointer
    end
    # Within a major version structs and enumerations only grow.
    have, want = library_version(), VERSION_OF_HEADER
    have.major == want.major && have >= want ||
        error("libnegcos is version $have, and Negcos.jl needs $(want.major).$(want.minor) or a later $(want.major).x")
    for (T, _) in INITIALISERS
        size = defaults(T).struct_size
        size == sizeof(T) || error("libnegcos answers $size to a $T of $(sizeof(T)) bytes: another layout")
    end
    return nothing
end

"""
    Negcos.library_version() -> VersionNumber

The version of the C library in use.
"""
function library_version()
    version = ccall(functions[:negcos_version], UInt32, ())
    return VersionNumber(version >> 16, (version >> 8) & 0xff, version & 0xff)
end

"""
    Negcos.isas() -> Vector{String}

The instruction sets built into the library, best first.
"""
function isas()
    count = ccall(functions[:negcos_isa_count], Int32, ())
    return [unsafe_string(ccall(functions[:negcos_isa_name], Cstring, (Int32,), i)) for i in 0:count-1]
end

"""
    Negcos.isa_available(name) -> Bool

Whether an instruction set is built in and this machine can run it.
"""
isa_available(name::AbstractString) = ccall(functions[:negcos_isa_available], Int32, (Cstring,), name) == 1

"""
    NegcosError

What the C library refused. `status` is a Symbol, one of the names of `Negcos.STATUS` (`:value`, `:overlap`,
`:unsupported`, …), `message` the library's sentence: which argument, what it was, what was expected. The sentence calls an
embedding a row, and counts from 0: row 3 of documents is column 4 of the matrix.
"""
struct NegcosError <: Exception
    status::Symbol
    message::String
end
Base.showerror(io::IO, error::NegcosError) = print(io, "NegcosError (", error.status, "): ", error.message)

status_string(code::Integer) = unsafe_string(ccall(functions[:negcos_status_string], Cstring, (Int32,), code))

# Within one task and without a yield since the call: the thread is the same, and so is its last error.
function check(code::Int32)
    code == STATUS.ok && return nothing
    message = unsafe_string(ccall(functions[:negcos_last_error], Cstring, ()))
    throw(NegcosError(Symbol(replace(status_string(code), ' ' => '_')), message))
end
