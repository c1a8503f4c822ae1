# SPDX-License-Identifier: Apache-2.0

const OPTIONS = (
    :objective, :similarity, :sampling, :rounds, :reduction, :direction, :exclude, :seed, :step, :scale, :temperature,
    :bias, :norm_floor, :margin, :label_smoothing, :hardness, :false_negative_margin, :correction,
)
const PREFIXES = (:prefix_dims, :prefix_weights)
const INPUTS = (
    :hard_negatives, :positives, :negatives, :document_ids, :query_ids, :log_probability, :weights,
)
const OUTPUTS = (
    :losses, :hit_probability, :logits, :grad_queries, :grad_documents, :grad_hard_negatives, :negatives,
)

# The options, and what must be kept alive while they are used.
function c_options(arguments, others)
    options = set_fields!(defaults(COptions), arguments, OPTIONS, (PREFIXES..., others...))
    dims = Int32[number(:prefix_dims, Int32, d) for d in get(arguments, :prefix_dims, ())]
    weights = Float64[number(:prefix_weights, Float64, w) for w in get(arguments, :prefix_weights, ())]
    isempty(weights) || length(weights) == length(dims) ||
        throw(DimensionMismatch("prefix_weights: length $(length(weights)), expected $(length(dims)) as of prefix_dims"))
    options.prefix_count = length(dims)
    isempty(dims) || (options.prefix_dims = pointer(dims))
    isempty(weights) || (options.prefix_weights = pointer(weights))
    return options, (dims, weights)
end

# Hard negatives of each query.
function hard_count(hard_negatives, B)
    columns = hard_negatives === nothing ? 0 : size(hard_negatives, 2)
    columns == 0 && return 0
    B > 0 && columns % B == 0 ||
        throw(DimensionMismatch("hard_negatives: $columns columns, expected a multiple of the $B of queries"))
    return columns ÷ B
end

# The size of an output, d the rows and B the columns of queries, M the columns of documents.
function output_size(name, d, B, M, H, rounds)
    name in (:losses, :hit_probability) && return (B,)
    name === :logits && return (1 + rounds + H, B)
    name === :grad_queries && return (d, B)
    name === :grad_documents && return (d, M)
    name === :grad_hard_negatives && return (d, H * B)
    name === :negatives && return (rounds, B)
    throw(ArgumentError("no output $name: there are $(list(OUTPUTS))"))
end

"""
    Negcos.evaluate!(out, context, queries, documents; inputs…, options…) -> NamedTuple of numbers

The loss of a batch, and the arrays of the NamedTuple `out`, which are the caller's and are written in place. Nothing of
the size of an array is allocated or copied (rows of documents that count from 1 go through a buffer of the context's).

    dQ, dD = similar(Q), similar(D)
    result = Negcos.evaluate!((grad_queries = dQ, grad_documents = dD), context, Q, D; sampling = :all)
    result.loss

`queries` is `d × B`, `documents` `d × M`, an embedding a column, of `Float32`, `Float64`, `Float16` or
[`Negcos.BFloat16`](@ref); column i of `documents` is the positive of query i. Views are passed as they are when their
columns are contiguous (`view(X, 1:64, :)`, `view(X, :, 1:2:9)`).

Returned: `loss`, `grad_scale`, `grad_bias` (∂loss/∂scale, ∂bias), `accuracy`, `mean_reciprocal_rank`, `excluded`
(negatives dropped) and `zero_rows` (embeddings whose norm is 0).

`out` has any of these, of the queries' element type:

| | size | |
|---|---|---|
| `losses`, `hit_probability` | `B` | loss of each query; exp(-loss) |
| `logits` | `1 + rounds + H × B` | the positive's first; not with `sampling = :all` |
| `grad_queries`, `grad_documents`, `grad_hard_negatives` | as the inputs | ∂loss/∂ each |
| `negatives` | `rounds × B` | `Int32`, the columns of `documents` drawn, from 1 ([`Negcos.ZeroBased`](@ref): from 0); not with `:all` |

Inputs:

| | size | |
|---|---|---|
| `hard_negatives` | `d × (H·B)` | columns (i-1)H+1 … iH are negatives of query i alone |
| `positives` | `B` | the column of `documents` that is each query's positive; from 1, or `ZeroBased` |
| `negatives` | `rounds × B` | with `sampling = :given`; from 1 with 0 for "absent", or `ZeroBased` |
| `document_ids`, `query_ids` | `M`, `B` | `Int64`, for `exclude` |
| `log_probability` | `M` | `Float64`, log Q of each document |
| `weights` | `B` | `Float64`, of the queries |

Options, with their defaults: `objective = :softmax` (`:batch_softmax`, `:sigmoid`, `:decoupled`),
`similarity = :cosine` (`:dot`), `sampling = :shuffle` (`:derangement`, `:cyclic`, `:uniform`, `:log_uniform`, `:given`,
`:all`, `:groups`), `rounds = 4`, `reduction = :mean` (`:sum`), `direction = :query_to_document` (`:both`), `exclude = ()`
(`:same_document_id`, `:same_query_id`, or both in a tuple), `seed = 0`, `step = 0`, `scale = 20`, `temperature = 1`,
`bias = 0`, `norm_floor = 1e-12`, `margin = 0`, `label_smoothing = 0`, `hardness = 0`, `false_negative_margin = Inf` (off),
`correction = :all_candidates` (`:negatives_only`), `prefix_dims = ()`, `prefix_weights = ()` (1 each).

Throws `DimensionMismatch` for sizes, `ArgumentError` for strides, element types, unknown keywords and Symbols, and
[`NegcosError`](@ref) for what the library refuses; no output was written then.
"""
function evaluate!(
    out::NamedTuple, context::Context, queries::AbstractMatrix, documents::AbstractMatrix;
    hard_negatives::Union{Nothing,AbstractMatrix} = nothing, positives = nothing, negatives = nothing,
    document_ids = nothing, query_ids = nothing, log_probability = nothing, weights = nothing, arguments...,
)
    options, kept = c_options(arguments, INPUTS)
    T, (d, B), M = eltype(queries), size(queries), size(documents, 2)
    H, rounds = hard_count(hard_negatives, B), Int(options.rounds)

    batch = defaults(CBatch)
    batch.queries = matrix(:queries, queries)
    batch.documents = matrix(:documents, documents, T, (d, M))
    hard_negatives === nothing ||
        (batch.hard_negatives = matrix(:hard_negatives, hard_negatives, T, (d, H * B)))
    batch.document_ids = contiguous(:document_ids, document_ids, Int64, (M,))
    batch.query_ids = contiguous(:query_ids, query_ids, Int64, (B,))
    batch.log_probability = contiguous(:log_probability, log_probability, Float64, (M,))
    batch.weights = contiguous(:weights, weights, Float64, (B,))

    result = defaults(CResult)
    for (name, x) in pairs(out)
        expected = output_size(name, d, B, M, H, rounds)
        setfield!(result, name,
            name === :negatives ? written_rows(name, x, expected) :
            length(expected) == 1 ? column(name, x, T, expected[1]) : matrix(name, x, T, expected))
    end

    pointed_to = (out, queries, documents, hard_negatives, document_ids, query_ids, log_probability, weights, kept)
    exclusively(context) do handle
        GC.@preserve pointed_to positives negatives begin
            batch.positives = rows(:positives, positives, context.positives, (B,), 1:M)
            batch.negatives = rows(:negatives, negatives, context.negatives, (rounds, B), 0:M)
            check(ccall(functions[:negcos_evaluate], Int32, (Ptr{Cvoid}, Ref{COptions}, Ref{CBatch}, Ref{CResult}),
                handle, options, batch, result))
        end
    end
    haskey(out, :negatives) && count_from_one!(out.negatives)
    return (
        loss = result.loss, grad_scale = result.grad_scale, grad_bias = result.grad_bias, accuracy = result.accuracy,
        mean_reciprocal_rank = result.mean_reciprocal_rank, excluded = result.excluded, zero_rows = result.zero_rows,
    )
end

const DEFAULT_ROUNDS = 4

"""
    Negcos.evaluate(context, queries, documents; outputs = (), inputs…, options…) -> NamedTuple

[`Negcos.evaluate!`](@ref) with arrays of its own: `outputs` names them, the result has them beside the numbers.

    result = Negcos.evaluate(context, Q, D; outputs = (:grad_queries, :losses), sampling = :all)
    result.loss, result.grad_queries, result.losses
"""
function evaluate(
    context::Context, queries::AbstractMatrix, documents::AbstractMatrix;
    outputs = (), rounds = DEFAULT_ROUNDS, hard_negatives = nothing, arguments...,
)
    (d, B), M = size(queries), size(documents, 2)
    H, N = hard_count(hard_negatives, B), number(:rounds, Int32, rounds)
    names = outputs isa Symbol ? (outputs,) : Tuple(outputs)
    arrays = map(names) do name
        shape = max.(output_size(name, d, B, M, H, Int(N)), 0)
        Array{name === :negatives ? Int32 : eltype(queries)}(undef, shape)
    end
    out = NamedTuple{names}(arrays)
    return merge(evaluate!(out, context, queries, documents; rounds = N, hard_negatives = hard_negatives, arguments...), out)
end

"""
    negative_cosine_loss(context, queries, documents, [hard_negatives,] [scale, [bias]]; inputs…, options…) -> Float64

The loss alone, differentiable with ChainRulesCore (so with Zygote and Flux) in each positional argument but the context;
`scale` and `bias` may be learnt. Loss and gradients are computed in one call, when the gradient is asked for. Inputs and
options: [`Negcos.evaluate!`](@ref).
"""
negative_cosine_loss(
    context::Context, queries::AbstractMatrix, documents::AbstractMatrix, differentiable::Union{AbstractMatrix,Real}...;
    arguments...,
) = evaluate(context, queries, documents; named(differentiable...; arguments...)...).loss

# The optional positional arguments as keyword arguments, beside the others.
named(; arguments...) = values(arguments)
named(scale::Real; arguments...) = merge_once((scale = scale,), values(arguments))
named(scale::Real, bias::Real; arguments...) = merge_once((scale = scale, bias = bias), values(arguments))
named(hard_negatives::AbstractMatrix, numbers::Real...; arguments...) =
    merge_once((hard_negatives = hard_negatives,), named(numbers...; arguments...))
function merge_once(positional, arguments)
    for name in keys(positional)
        haskey(arguments, name) && throw(ArgumentError("$name is given twice"))
    end
    return merge(positional, arguments)
end

"""
    Negcos.sample!(negatives, context, documents = B; options…) -> negatives

The negatives alone, those that [`Negcos.evaluate!`](@ref) uses for `B` queries and as many `documents` under the same
`sampling`, `rounds`, `seed` and `step`. `negatives` is a `rounds × B` `Matrix{Int32}` of columns of documents, from 1, or
[`Negcos.ZeroBased`](@ref) of one.
"""
function sample!(
    negatives::Union{AbstractMatrix,ZeroBased}, context::Context, documents::Union{Nothing,Integer} = nothing;
    arguments...,
)
    array = negatives isa ZeroBased ? negatives.rows : negatives
    options, kept = c_options(merge((rounds = size(array, 1),), values(arguments)), ())
    B = size(array, 2)
    target = written_rows(:negatives, negatives, (Int(options.rounds), B))
    exclusively(context) do handle
        GC.@preserve negatives kept check(ccall(functions[:negcos_sample], Int32,
            (Ptr{Cvoid}, Ref{COptions}, Int64, Int64, Ptr{Int32}), handle, options, B, something(documents, B), target))
    end
    return count_from_one!(negatives)
end

"""
    Negcos.sample(context, B, documents = B; options…) -> Matrix{Int32}

[`Negcos.sample!`](@ref) with an array of its own.
"""
function sample(context::Context, B::Integer, documents::Integer = B; rounds = DEFAULT_ROUNDS, arguments...)
    negatives = Matrix{Int32}(undef, max(number(:rounds, Int32, rounds), 0), max(B, 0))
    return sample!(negatives, context, documents; rounds = rounds, arguments...)
end
