"""Every number that defines the picture, once, for all back ends and for Blender's shader (numpy-only).

They are those of 3D Gaussian splatting as gsplat's "classic" mode draws it, so that an avatar trained here looks the
same in other viewers.
"""

# Added to both diagonal entries of the projected covariance, px^2: no splat is thinner than about a pixel.
BLUR = 0.3
# A pixel that a splat covers with less than this is not covered at all. It also ends the splat: its extent is where
# opacity * exp(-sigma) falls to this value, at most 3.33 standard deviations.
ALPHA_MIN = 1.0 / 255.0
# One splat never hides more than this, so that the transmittance behind it stays positive and can be divided by.
ALPHA_MAX = 0.999
# A splat that would bring the transmittance down to this or below ends its pixel, and is not drawn itself.
TRANSMITTANCE_MIN = 1e-4
# The affine approximation of the perspective projection is taken at a point that is moved inside the picture widened
# by this share of its half size; outside, it would stretch splats without bound.
FRUSTUM_MARGIN = 0.3
# Splats nearer than this to a perspective camera, metres, are not drawn, unless the camera says otherwise.
NEAR = 0.01
# Splats further away than this, metres, are not drawn.
FAR = 1e10
# A quaternion shorter than the square root of this names no rotation; its splat is not drawn.
QUATERNION_MIN_SQUARED = 1e-30

# Real spherical harmonics by degree, Condon-Shortley phase included, in the order (degree, -degree..degree).
SH_0 = 0.28209479177387814
SH_1 = 0.4886025119029199
SH_2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH_3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
# What is added to the spherical harmonics' sum to get the colour: coefficients of zero are mid grey.
SH_OFFSET = 0.5
