# SPDX-License-Identifier: Apache-2.0
"""
In-batch negative-sampling losses of two-tower retrieval models: Julia over the C library `negcos`.

A `d × B` matrix, one embedding a column, is passed as it is; nothing is copied. [`Negcos.Context`](@ref) chooses the
threads and the instruction set, [`Negcos.evaluate!`](@ref) computes the loss and whatever arrays it is given,
[`Negcos.evaluate`](@ref) allocates them, and [`negative_cosine_loss`](@ref) is the loss alone, with a rule for automatic
differentiation. What each option means: `docs/losses.md` of negcos.

`NegcosError` and `negative_cosine_loss` are exported; everything else is called by its full name.

Rows of documents (`positives`, `negatives`) count from 1, and 0 is "absent". [`Negcos.ZeroBased`](@ref) marks an array
that has them as the C library does, from 0 with -1 for "absent", and is then not copied.
"""
module Negcos

import Libdl

export NegcosError, negative_cosine_loss

include("abi.jl")
include("arguments.jl")
include("context.jl")
include("evaluate.jl")
include("frequency.jl")

"""
    Negcos.chain_rules_file

The rule of [`negative_cosine_loss`](@ref) for ChainRulesCore. Julia 1.9 and later load it by themselves once both packages
are there. On an older one include it, where ChainRulesCore can be imported: `include(Negcos.chain_rules_file)`.
"""
const chain_rules_file = joinpath(dirname(@__DIR__), "ext", "NegcosChainRulesCoreExt.jl")

function __init__()
    load_library()
    parallel_for_pointer[] = @cfunction(parallel_for, Int32, (Ptr{Cvoid}, Int64, Ptr{Cvoid}, Ptr{Cvoid}))
    return nothing
end

end
